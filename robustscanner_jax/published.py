"""The published results of RobustScanner, and the benchmark splits that they belong to.

IC13 and IC15 are published in splits that differ by up to nine points, so a set is told
by its number of records, and a number stands only beside the split it was made on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

# The splits by which published tables differ: (set, records) -> name in the table.
_SPLITS = {
    ("iiit5k", 3000): "IIIT5K",
    ("svt", 647): "SVT",
    ("ic13", 857): "IC13-857",
    ("ic13", 1015): "IC13-1015",
    ("ic13", 1095): "IC13-1095",
    ("ic15", 1811): "IC15-1811",
    ("ic15", 2077): "IC15-2077",
    ("svtp", 639): "SVTP-639",
    ("svtp", 645): "SVTP",
    ("cute80", 288): "CUTE80",
}
_ALIASES = {
    "iiit": "iiit5k",
    "iiit5kwords": "iiit5k",
    "icdar13": "ic13",
    "icdar2013": "ic13",
    "icdar15": "ic15",
    "icdar2015": "ic15",
    "svtperspective": "svtp",
    "cute": "cute80",
    "ct80": "cute80",
}
SIX_SETS = ("IIIT5K", "SVT", "IC13-1015", "IC15-2077", "SVTP", "CUTE80")

# Protocols whose numbers may stand beside the published ones.
PUBLISHED_PROTOCOLS = ("36", "mmocr", "strhub")


class Published(NamedTuple):
    """One published result of RobustScanner, in percent.

    MMOCR 1.x and MindOCR publish no mean over these six sets; theirs is computed here
    from their numbers.
    """

    name: str
    by_split: Mapping[str, float]
    mean_of_six: float
    note: str


PUBLISHED = (
    Published(
        "paper",
        dict(zip(SIX_SETS, (95.3, 88.1, 94.8, 77.1, 79.5, 90.3), strict=True)),
        87.52,
        "as listed in OpenOCR's table; the splits of IC13 and IC15 are not named there",
    ),
    Published(
        "MMOCR 1.x",
        dict(zip(SIX_SETS, (95.10, 90.11, 93.20, 75.78, 80.78, 87.50), strict=True)),
        87.08,
        "README; its metafile gives the same weights SVT 89.34, IC15 75.59, CT80 87.15",
    ),
    Published(
        "MMOCR 1.x TTA",
        dict(zip(SIX_SETS, (94.87, 90.11, 92.61, 78.05, 81.24, 88.19), strict=True)),
        87.51,
        "the same weights; tall crops were also read at 90 and 270 degrees",
    ),
    Published(
        "MMOCR 0.x",
        dict(zip(SIX_SETS, (95.1, 89.2, 93.1, 77.8, 80.3, 90.3), strict=True)),
        87.63,
        "tall crops were also read at 90 and 270 degrees",
    ),
    Published("PaddleOCR", {}, 87.77, "no numbers per set are published"),
    Published(
        "MindOCR",
        {
            "IC13-857": 95.22,
            "IC15-1811": 82.16,
            **dict(
                zip(SIX_SETS, (95.53, 92.12, 94.29, 73.38, 82.33, 89.58), strict=True)
            ),
        },
        87.87,
        "its own average, 89.37, is over ten sets",
    ),
)


def split_name(name: str, size: int) -> str:
    """Returns a set's name with its split, told from the number of records.

    `IC13` with 857 records becomes `IC13-857`; a known set of another size is marked,
    because its number compares with no published one. Other names stay as they are.
    """
    benchmark = _benchmark(name)
    if benchmark is None:
        return name
    return _SPLITS.get((benchmark, size), f"{name} (not a published split)")


def is_contextless(name: str) -> bool:
    """Returns whether a set's name says that its strings are no words.

    The paper's RandText, this project's `rendered:randtext`, Union14M's contextless
    set: there a recogniser cannot guess, which is what the position branch is for.
    """
    plain = _plain(name)
    return "randtext" in plain or "contextless" in plain


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _benchmark(name: str) -> str | None:
    known = {benchmark for benchmark, _ in _SPLITS}
    plain = _plain(name)
    # The size may be part of the name: IC13_1015.
    sizes = sorted({str(size) for _, size in _SPLITS}, key=len, reverse=True)
    for suffix in ("", *sizes):
        if plain.endswith(suffix):
            stem = plain.removesuffix(suffix)
            stem = _ALIASES.get(stem, stem)
            if stem in known:
                return stem
    return None
