"""Union14M-L, 3.2 million real words in five levels, and its benchmark."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from data_prep.builders.base import read_all
from data_prep.builders.listed import LabelList, list_labels
from data_prep.checks import Dropped
from robustscanner_jax.data.records import Record

LEVELS = ("easy", "medium", "hard", "normal", "challenging")
_FILTERED = "filter_jsonl_mmocr0.x/filter_train_{}.jsonl"


class Union14ML(LabelList):
    """The words to train on, without those that the benchmark shows as well.

    The authors' filtered lists are needed for that (6,599 words fewer). A split that
    ends in `_unfiltered` takes the plain lists.
    """

    NAME = "union14m_l"
    SPLITS = (
        *("train", *LEVELS, "val"),
        *(f"{level}_unfiltered" for level in ("train", *LEVELS)),
    )
    NEEDS = (
        "Union14M-L unpacked (full_images and train_annos), with the authors' list "
        "filter_jsonl_mmocr0.x in train_annos"
    )
    FOLDERS = ("", "full_images")

    def entries(self) -> Iterator[tuple[str, str]]:
        """Yields (path, text)."""
        return itertools.chain.from_iterable(map(list_labels, self._lists()))

    def _lists(self) -> list[Path]:
        level = self.split.removesuffix("_unfiltered")
        if level == "val":
            names = ("mmocr-0.x/val_annos.jsonl", "mmocr1.0.x/val_annos.json")
            return [self.find(*(f"train_annos/{name}" for name in names))]
        levels = LEVELS if level == "train" else (level,)
        if self.split == level:
            places = ("train_annos/", "")
            return [
                self.find(*(place + _FILTERED.format(one) for place in places))
                for one in levels
            ]
        return [
            self.find(
                f"train_annos/mmocr-0.x/train_{one}.jsonl",
                f"train_annos/mmocr1.0.x/train_{one}.json",
            )
            for one in levels
        ]


class Union14MBenchmark(LabelList):
    """Seven test sets: curve, multi_oriented, artistic and others."""

    NAME = "union14m_benchmark"
    SPLITS = (
        *("curve", "multi_oriented", "artistic", "contextless", "salient"),
        *("multi_words", "general"),
    )
    NEEDS = "Union14M-Benchmarks unpacked (a folder for each set)"

    def entries(self) -> Iterator[tuple[str, str]]:
        """Yields (path, text)."""
        return list_labels(self._list())

    def read(self, entry: tuple[str, str]) -> list[Record | Dropped]:
        """Returns the record of one line."""
        inside = self._list().parent.relative_to(self.root)
        folders = (str(inside), str(inside / "imgs"), "", str(inside.parent))
        return [self.read_below(folders, *entry)]

    def _list(self) -> Path:
        names = ("annotation.jsonl", "annotation.json")
        places = ("", "Union14M-Benchmarks/")
        return self.find(*(f"{p}{self.split}/{name}" for p in places for name in names))


def read_union14m_l(root: str, split: str = "train") -> Iterator[Record | Dropped]:
    """Yields every word of a split, or why it is not used."""
    return read_all(Union14ML(root, split))


def read_union14m_benchmark(root: str, split: str) -> Iterator[Record | Dropped]:
    """Yields every word of a test set, or why it is not used."""
    return read_all(Union14MBenchmark(root, split))
