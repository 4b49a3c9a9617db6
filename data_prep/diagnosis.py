"""From what was seen in a dataset to what is wrong with it."""

import collections
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_prep.checks import REASONS
from data_prep.examine import Examination
from data_prep.overlap import (
    differing_bits,
    find_known,
    find_similar,
    mixed,
    repeats,
)

NUM_PAIRS = 24  # of equal pictures, kept for the page
_TALL = 2.0  # height over width; vertical text, or a crop that lies on its side
_CHARACTERS_SHOWN = 60
_ASPECTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tolerance:
    """From where on a finding is a problem; shares are of all records.

    Attributes:
      unusable: share of records that training would skip.
      outside: share of labels with a character that training does not know.
      too_long: share of labels longer than `max_len` - 1, as the end takes a step.
      contradicting: share of images that are there with two labels.
      max_len: decoding steps.
    """

    unusable: float = 0.01
    outside: float = 0.05
    too_long: float = 0.05
    contradicting: float = 0.01
    max_len: int = 30


def diagnose(
    seen: Examination, benchmarks: Sequence[Examination], tolerance: Tolerance
) -> dict[str, Any]:
    """Returns the findings on one dataset, as `verify.json` holds them.

    `problems` are what would hurt a training run, one sentence each. Pairs of records
    are given by their numbers in the sources.
    """
    rows = seen.rows
    lengths = collections.Counter(rows["length"].tolist())
    aspects = np.histogram(
        rows["width"] / np.maximum(rows["height"], 1), [*_ASPECTS, np.inf]
    )[0]
    findings = {
        "name": seen.name,
        "records": seen.count,
        "usable": len(rows),
        "dropped": {r: seen.dropped[r] for r in REASONS if r in seen.dropped},
        "characters": seen.characters,
        "labels_outside_charset": int(rows["outside"].sum()),
        "characters_outside_charset": seen.outside,
        "label_lengths": {str(n): lengths[n] for n in sorted(lengths)},
        "labels_too_long": int((rows["length"] >= tolerance.max_len).sum()),
        "aspect_ratios": dict(zip(_aspect_names(), aspects.tolist(), strict=True)),
        "tall": int((rows["height"] > _TALL * rows["width"]).sum()),
        "duplicates": within(seen),
        "against": [overlap(seen, benchmark) for benchmark in benchmarks],
        "reading_speed": seen.speed,
    }
    return {**findings, "problems": problems(findings, tolerance)}


def within(seen: Examination) -> dict[str, Any]:
    """Returns how many records repeat an earlier one of the same dataset."""
    rows = seen.rows
    first = repeats(rows["image"])
    same_bytes = first != np.arange(len(rows))
    picture = rows["picture"]
    looks = repeats(mixed(picture[:, 0], picture[:, 1], rows["label"]))
    same_picture = (looks != np.arange(len(rows))) & ~same_bytes
    contradicting = same_bytes & (rows["text"] != rows["text"][first])
    pairs = [*_pairs(seen, seen, contradicting, first)]
    pairs += _pairs(seen, seen, same_picture, looks)
    pairs += _pairs(seen, seen, same_bytes & ~contradicting, first)
    return {
        "same_bytes": int(same_bytes.sum()),
        "same_bytes_other_label": int(contradicting.sum()),
        "same_picture_and_label": int(same_picture.sum()),
        "pairs": pairs[:NUM_PAIRS],
    }


def overlap(seen: Examination, benchmark: Examination) -> dict[str, Any]:
    """Returns how many records show an image of a benchmark."""
    rows, known = seen.rows, benchmark.rows
    if not len(known):
        return {"benchmark": benchmark.name, "same_bytes": 0, "same_picture": 0} | {
            "benchmark_images": 0,
            "pairs": [],
        }
    same_bytes, twin = find_known(rows["image"], known["image"])
    similar, look_alike = find_similar(
        rows["picture"], rows["label"], known["picture"], known["label"]
    )
    similar &= ~same_bytes
    hit = {*twin[same_bytes].tolist(), *look_alike[similar].tolist()}
    pairs = _pairs(seen, benchmark, same_bytes, twin)
    pairs += _pairs(seen, benchmark, similar, look_alike)
    return {
        "benchmark": benchmark.name,
        "same_bytes": int(same_bytes.sum()),
        "same_picture": int(similar.sum()),
        "benchmark_images": len(hit),
        "pairs": pairs[:NUM_PAIRS],
    }


def problems(findings: dict[str, Any], tolerance: Tolerance) -> list[str]:
    """Returns what would hurt a training run, one sentence each."""
    records, found = findings["records"], []

    def judge(count: int, limit: float, what: str) -> None:
        if count > limit * records:
            found.append(
                f"{count:,} of {records:,} records ({count / records:.1%}): {what}"
            )

    if not findings["usable"]:
        reasons = {reason: e["count"] for reason, e in findings["dropped"].items()}
        return [f"not one of {records:,} records can be used: {reasons}"]
    bad = records - findings["usable"]
    judge(bad, tolerance.unusable, "unreadable, or without a label")
    strange = "".join(list(findings["characters_outside_charset"])[:_CHARACTERS_SHOWN])
    outside = f"labels with characters outside the charset ({strange!r})"
    judge(findings["labels_outside_charset"], tolerance.outside, outside)
    steps = tolerance.max_len
    too_long = f"labels too long for {steps} decoding steps, which {steps - 1} fit in"
    judge(findings["labels_too_long"], tolerance.too_long, too_long)
    twice = findings["duplicates"]["same_bytes_other_label"]
    judge(twice, tolerance.contradicting, "an image that is there with two labels")
    for entry in findings["against"]:
        known = entry["same_bytes"] + entry["same_picture"]
        judge(known, 0.0, f"images of the benchmark {entry['benchmark']}")
    return found


def as_text(findings: dict[str, Any]) -> str:
    """Returns the findings as lines for a terminal."""
    twins, speed = findings["duplicates"], findings["reading_speed"]
    lengths = [int(length) for length in findings["label_lengths"]] or [0]
    lines = [
        f"{findings['name']}: {findings['usable']:,} of {findings['records']:,} "
        "records usable",
        *(
            f"  {reason}: {entry['count']:,}, such as {entry['examples'][0]['id']} "
            f"({entry['examples'][0]['detail'][:120]})"
            for reason, entry in findings["dropped"].items()
        ),
        f"  labels of {min(lengths)} to {max(lengths)} characters, "
        f"{len(findings['characters'])} different ones; outside the charset: "
        f"{findings['labels_outside_charset']:,} labels; too long: "
        f"{findings['labels_too_long']:,}",
        f"  more than twice as tall as wide: {findings['tall']:,}",
        f"  repeated: {twins['same_bytes']:,} images to the byte, of them "
        f"{twins['same_bytes_other_label']:,} with another label; "
        f"{twins['same_picture_and_label']:,} more look the same",
        *(
            f"  in {entry['benchmark']}: {entry['same_bytes']:,} images to the byte, "
            f"{entry['same_picture']:,} more look the same"
            for entry in findings["against"]
        ),
        f"  reading: {speed.get('in_order', 0):,.0f} records a second in order, "
        f"{speed.get('at_random', 0):,.0f} at random",
        *(f"PROBLEM {problem}" for problem in findings["problems"]),
    ]
    return "\n".join(lines)


def _aspect_names() -> list[str]:
    """Returns the bins of width over height."""
    ends = [f"{low:g}-{high:g}" for low, high in itertools.pairwise(_ASPECTS)]
    return [*ends, f"{_ASPECTS[-1]:g}+"]


def _pairs(
    seen: Examination, known: Examination, which: np.ndarray, twin: np.ndarray
) -> list[dict[str, int]]:
    rows = np.flatnonzero(which)[:NUM_PAIRS]
    bits = differing_bits(seen.rows["picture"][rows], known.rows["picture"][twin[rows]])
    return [
        {
            "record": int(seen.rows["number"][row]),
            "twin": int(known.rows["number"][twin[row]]),
            "differing_bits": int(differing),
        }
        for row, differing in zip(rows, bits, strict=True)
    ]
