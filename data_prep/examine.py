"""Looks at every record of a dataset once, and keeps 50 bytes of each."""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
import time
from typing import Any

import numpy as np
import tqdm

from data_prep import workers
from data_prep.checks import Dropped, Limits, check_label, decode_checked, reason_of
from data_prep.conversion_report import NUM_EXAMPLES, digest
from data_prep.overlap import picture_hash
from robustscanner_jax.data.records import Record
from robustscanner_jax.data.sources import Source

_CHUNK = 5_000  # records
_SPEED_RECORDS = 2_000
_NOT_COMPARED = re.compile(r"[\W_]+")
# One row for each usable record.
ROW = np.dtype(
    [
        ("number", np.int64),  # in the source
        ("image", np.uint64),  # digest of the bytes
        ("label", np.uint64),  # digest of the label as `compared_label` has it
        ("text", np.uint64),  # digest of the label as it is spelled
        ("picture", np.uint64, (2,)),  # `overlap.picture_hash`
        ("height", np.int32),  # pixels
        ("width", np.int32),
        ("length", np.int32),  # of the label, in characters
        ("outside", np.bool_),  # whether a character is not in the charset
    ]
)


@dataclasses.dataclass
class Examination:
    """What was found in one dataset.

    Attributes:
      name: of the source.
      count: records, usable or not.
      rows: of the usable ones, see `ROW`.
      dropped: reason -> {"count", "examples"} of the others.
      characters: how often each occurs in the labels of the usable ones.
      outside: the same, of characters outside the charset alone.
      speed: see `reading_speed`.
    """

    name: str
    count: int = 0
    rows: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, ROW))
    dropped: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    characters: dict[str, int] = dataclasses.field(default_factory=dict)
    outside: dict[str, int] = dataclasses.field(default_factory=dict)
    speed: dict[str, float] = dataclasses.field(default_factory=dict)


def compared_label(text: str) -> str:
    """Returns a label as it counts for "the same word": no case, no marks."""
    return _NOT_COMPARED.sub("", text.casefold()) or text


def examine(
    source: Source, *, charset: str, processes: int = 1, progress: bool = False
) -> Examination:
    """Reads and decodes every record.

    Args:
      source: see `sources.open_source`.
      charset: the characters that training would know.
      processes: workers; 0 takes one a core. Few records are read in this one.
      progress: whether to draw a progress bar.

    Raises `OSError` where a worker is killed.
    """
    count = len(source)
    chunks = [range(i, min(i + _CHUNK, count)) for i in range(0, count, _CHUNK)]
    look = functools.partial(_examine_chunk, source, known=frozenset(charset))
    processes = workers.count(processes, len(chunks))
    bar = tqdm.tqdm(total=count, unit="record", disable=not progress, desc=source.name)
    with bar:
        if processes == 1:
            parts = []
            for chunk in chunks:
                parts.append(look(chunk))
                bar.update(len(chunk))
        else:
            parts = _in_workers(source.name, look, chunks, processes, bar)
    whole = _merge(source.name, parts)
    whole.speed = reading_speed(source)
    return whole


def reading_speed(source: Source, records: int = _SPEED_RECORDS) -> dict[str, float]:
    """Returns records a second, read but not decoded, in order and at random."""
    count = min(records, len(source))
    shuffled = np.random.default_rng(0).permutation(len(source))[:count]
    speed = {}
    for name, order in (("in_order", range(count)), ("at_random", shuffled.tolist())):
        started = time.perf_counter()
        for number in order:
            try:
                source[number]
            except ValueError:  # counted elsewhere
                continue
        speed[name] = round(count / (time.perf_counter() - started), 1)
    return speed


def _in_workers(name, look, chunks, processes, bar) -> list[Examination]:
    advice = "try again with fewer --processes"
    with workers.open_workers(processes, look, where=name, advice=advice) as pool:
        parts = []
        for part in pool.map(workers.call, chunks):
            parts.append(part)
            bar.update(part.count)
        return parts


def _examine_chunk(source: Source, chunk: range, *, known: frozenset) -> Examination:
    part = Examination(source.name, len(chunk))
    rows = []
    characters, outside = collections.Counter(), collections.Counter()
    for number in chunk:
        record = _read(source, number)
        seen = _look_at(record) if isinstance(record, Record) else record
        if isinstance(seen, Dropped) or isinstance(record, Dropped):
            _count_dropped(part.dropped, seen)
            continue
        strange = [c for c in record.text if c not in known]
        characters.update(record.text)
        outside.update(strange)
        rows.append((number, *seen, len(record.text), bool(strange)))
    part.rows = np.array(rows, ROW)
    part.characters, part.outside = characters, outside
    return part


def _read(source: Source, number: int) -> Record | Dropped:
    try:
        return Record(**source[number])
    except ValueError as error:
        return Dropped(f"{source.name}/{number:09d}", reason_of(error), str(error))


def _look_at(record: Record) -> Dropped | tuple[int, int, int, np.ndarray, int, int]:
    """Returns the digests and the size, or why the record is of no use."""
    limits = Limits()
    refused = check_label(record, limits)
    if refused:
        return refused
    pixels = decode_checked(record, limits)
    if isinstance(pixels, Dropped):
        return pixels
    return (
        digest(record.image),
        digest(compared_label(record.text).encode()),
        digest(record.text.encode()),
        picture_hash(pixels),
        *pixels.shape[:2],
    )


def _count_dropped(into: dict[str, dict[str, Any]], dropped: Any) -> None:
    entry = into.setdefault(dropped.reason, {"count": 0, "examples": []})
    entry["count"] += 1
    if len(entry["examples"]) < NUM_EXAMPLES:
        entry["examples"].append({"id": dropped.id, "detail": dropped.detail})


def _merge(name: str, parts: list[Examination]) -> Examination:
    whole = Examination(name)
    characters, outside = collections.Counter(), collections.Counter()
    for part in parts:
        whole.count += part.count
        characters.update(part.characters)
        outside.update(part.outside)
        for reason, more in part.dropped.items():
            entry = whole.dropped.setdefault(reason, {"count": 0, "examples": []})
            entry["count"] += more["count"]
            examples = entry["examples"] + more["examples"]
            entry["examples"] = examples[:NUM_EXAMPLES]
    whole.rows = np.concatenate([part.rows for part in parts])
    whole.characters = dict(characters.most_common())
    whole.outside = dict(outside.most_common())
    return whole
