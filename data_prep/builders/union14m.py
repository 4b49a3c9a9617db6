"""Union14M-L, 3.2 million real words in five levels, and its benchmark."""

from __future__ import annotations

from pathlib import Path

from data_prep.builders.listed import LabelList

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

    def lists(self) -> list[Path]:
        """Returns a list for each level of the split."""
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

    def lists(self) -> list[Path]:
        """Returns the list of the set."""
        names = ("annotation.jsonl", "annotation.json")
        places = ("", "Union14M-Benchmarks/")
        found = self.find(*(f"{p}{self.split}/{n}" for p in places for n in names))
        return [found]

    def folders(self) -> tuple[str, ...]:
        """Returns the set's own folder, the one inside it and those around it."""
        inside = self.lists()[0].parent.relative_to(self.root)
        return (str(inside), str(inside / "imgs"), "", str(inside.parent))
