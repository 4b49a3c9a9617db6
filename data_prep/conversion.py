"""From any input to a dataset with a report: planned, written in shards, finished."""

import functools
import itertools
import json
import math
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from data_prep import builders, conversion_report, workers
from data_prep.beam_shards import write_shards_with_beam
from data_prep.checks import Dropped, Limits, check_record
from data_prep.inputs import Input, open_input
from data_prep.sharding import (
    Shards,
    Tick,
    claimed,
    part,
    write_shards,
)
from robustscanner_jax.data import records
from robustscanner_jax.data.shard_source import ShardSource
from robustscanner_jax.whole_file import write_whole_escaped

REPORT_NAME = "report.json"
_PARTS_NAME = "parts"  # the counts of finished shards, until the report is written
_SHARD_RECORDS = 10_000  # what a stopped run loses, at most, in each process


def convert(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    from_format: str = "auto",
    images: str | os.PathLike[str] | None = None,
    split: str | None = None,
    limits: Limits | None = None,
    processes: int = 0,
    shards: int = 0,
    progress: bool = False,
    beam: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Converts a dataset, and returns the report, as `report.json` holds it.

    Shards and report depend on the arguments and the input alone, save for the
    report's `run` (time, speed, processes).

    Args:
      source: what to convert.
      output: folder, made if missing.
      from_format: one of `inputs.FORMATS` or `builders.NAMES`.
      images: the folder that the paths of a label file are relative to; a published
        dataset has none.
      split: of a published dataset, where None is "train"; a plain format has none.
      limits: what is refused; the default is `Limits()`.
      processes: workers; 0 takes one a core it may use, 1 works in this process.
      shards: files; 0 takes one for each 10,000 records.
      progress: whether to draw a progress bar.
      beam: options of an Apache Beam pipeline, which then writes the shards in place
        of processes here; every worker must see the input and the output folder.

    Raises:
      ValueError: the input cannot be opened, or nothing of it may enter, or the output
        folder holds something else.
      FileNotFoundError: there is no input.
      OSError: a worker process was killed, or the disk is full.
    """
    for name, value in (("processes", processes), ("shards", shards)):
        if value < 0:
            raise ValueError(f"{name}: expected at least 0, got {value}")
    output, limits = Path(_absolute(output)), limits or Limits()
    started = time.perf_counter()
    request = {
        "converter": "data_prep.convert",
        "input": _absolute(source),
        "from": from_format,
        "images": None if images is None else _absolute(images),
        "shards_asked": shards,
        "limits": vars(limits),
    }
    if from_format in builders.NAMES:
        request["split"] = split = split or "train"
    elif split is not None:
        raise ValueError(
            f"--split: of a published dataset alone, not of {from_format}; that of a "
            "TensorFlow Datasets folder is named in --input=FOLDER#SPLIT"
        )
    reader = _open(source, from_format, images, split)
    entries = sum(1 for _ in reader.entries())
    if not entries:
        raise ValueError(f"{source}: nothing to convert, it lists no image")
    estimate = math.ceil(entries * reader.records_per_entry / _SHARD_RECORDS)
    num_shards = min(entries, shards or estimate)
    request |= {
        "name": _plain_name(reader.name),
        "entries": entries,
        "list": reader.digest(),  # an input that was corrected since is another one
    }
    wanted = Shards(folder=output, name=request["name"], count=num_shards)
    tasks = _tasks(reader, entries, num_shards)
    write = functools.partial(_write_shard, reader=reader, output=output, limits=limits)
    with claimed(output, request) as complete:
        if complete:
            shutil.rmtree(output / _PARTS_NAME, ignore_errors=True)
            report = json.loads((output / REPORT_NAME).read_text(encoding="utf-8"))
            return report | {"run": _run(0, 0.0, "the dataset was complete")}
        if beam is None:
            done = write_shards(
                wanted,
                tasks,
                write,
                processes=processes,
                progress=progress,
                total=entries,
                unit="entry",
            )
            how = f"{workers.count(processes, num_shards)} processes"
        else:
            done = write_shards_with_beam(wanted, tasks, write, beam)
            how = f"Apache Beam {' '.join(beam)}".rstrip()
        return _finish(wanted, request, done, time.perf_counter() - started, how)


def _open(
    source: str | os.PathLike[str],
    from_format: str,
    images: str | os.PathLike[str] | None,
    split: str | None,
) -> Input:
    if split is not None:
        if images is not None:
            raise ValueError(
                f"--images: {from_format} finds its images below --input; leave it out"
            )
        return cast(Input, builders.open_builder(from_format, source, split))
    return open_input(source, format_name=from_format, images=images)


def _absolute(path: str | os.PathLike[str]) -> str:
    return os.path.abspath(os.path.expanduser(os.fspath(path)))


def _run(entries: int, seconds: float, how: str) -> dict[str, Any]:
    return {
        "entries": entries,
        "seconds": round(seconds, 3),
        "entries_per_second": round(entries / seconds, 1) if seconds else 0.0,
        "workers": how,
    }


def _plain_name(name: str) -> str:
    """Returns a name for files: a source's name may hold anything."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "dataset"


def _tasks(reader: Input, entries: int, num_shards: int) -> Iterator[Sequence[Any]]:
    """Yields the entries of each shard; no more than one shard's are in memory here."""
    listed = reader.entries()
    for shard in range(num_shards):
        wanted = len(part(shard, entries, num_shards))
        task = list(itertools.islice(listed, wanted))
        if len(task) != wanted:
            raise ValueError(
                f"{reader.name}: expected {entries} entries, got fewer; the input "
                "changed while it was read"
            )
        yield task


def _write_shard(
    shard: int,
    task: Sequence[Any],
    writer: records.RecordWriter,
    tick: Tick,
    *,
    reader: Input,
    output: Path,
    limits: Limits,
) -> None:
    """Writes the good records of some entries, and beside them the counts of all."""
    counts = conversion_report.ShardCounts()
    for entry in task:
        for record in reader.read(entry):
            if isinstance(record, Dropped):
                counts.drop(record)
                continue
            verdict = check_record(record, limits)
            if isinstance(verdict, Dropped):
                counts.drop(verdict)
                continue
            writer.write(record)
            counts.keep(record)
        tick(1)
    counts.save(output / _PARTS_NAME, shard)


def _finish(
    shards: Shards, request: dict[str, Any], done: int, seconds: float, how: str
) -> dict[str, Any]:
    """Writes the report, then the index, and clears what is no longer needed."""
    parts = shards.folder / _PARTS_NAME
    counts, digests = conversion_report.merge(parts, shards.count)
    if not counts["out"]:
        reasons = {name: entry["count"] for name, entry in counts["dropped"].items()}
        raise ValueError(
            f"{request['input']}: not one of {counts['in']} records may enter the "
            f"dataset; dropped: {reasons}; the counts are in {parts}"
        )
    paths = [shards.path(shard) for shard in range(shards.count)]
    written = ShardSource(shards.name, paths)
    report = {
        "name": shards.name,
        "shards": shards.count,
        **counts,
        "duplicates": conversion_report.count_duplicates(
            digests, lambda number: written[number]["id"]
        ),
        "request": request,
        "run": _run(done, seconds, how),
    }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    write_whole_escaped(shards.folder / REPORT_NAME, text + "\n")
    records.write_index(
        shards.folder,
        name=shards.name,
        count=counts["out"],
        num_shards=shards.count,
        charset="".join(sorted(counts["characters"])),
        source=request,
    )
    shutil.rmtree(parts)
    return report
