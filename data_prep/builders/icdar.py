"""ICDAR 2011 (born digital), 2013 and 2015: word recognition, task 3 of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar

from data_prep import checks
from data_prep.builders.base import read_all
from data_prep.builders.listed import LabelList
from data_prep.checks import Dropped
from robustscanner_jax.data.records import Record

_ALPHANUMERIC = re.compile(r"[0-9A-Za-z]+")
IC15_LIST = "IC15_1811.txt"


class ICDAR2011(LabelList):
    """Words of web pages and e-mail, born digital."""

    NAME = "icdar2011"
    SPLITS = ("train", "test")
    NEEDS = "the archives of Challenge 1, Task 3, unpacked side by side"
    LISTS: ClassVar = {
        "train": ("Challenge1_Training_Task3_Images_GT/gt.txt", "train/gt.txt"),
        "test": (
            "Challenge1_Test_Task3_GT.txt",
            "Challenge1_Test_Task3_Images/Challenge1_Test_Task3_GT.txt",
            "test/gt.txt",
        ),
    }
    IMAGES: ClassVar = {
        "train": ("Challenge1_Training_Task3_Images_GT", "train"),
        "test": ("Challenge1_Test_Task3_Images", "test"),
    }

    def read(self, entry: tuple[str, str]) -> list[Record | Dropped]:
        """Returns the record of one line, or that its subset leaves it out."""
        left_out = self.left_out(*entry)
        if left_out:
            return [Dropped(entry[0], checks.NOT_IN_SUBSET, left_out)]
        return [self.read_below(self.IMAGES[self.split.split("_")[0]], *entry)]

    def left_out(self, path: str, text: str) -> str:
        """Returns why the subset of this split leaves a word out, or nothing."""
        return ""


class ICDAR2013(ICDAR2011):
    """Focused scene text: 848 to train on; 1,095 to test, or 1,015, or 857.

    1,015 leaves out words with a character that is no letter or digit; 857 also leaves
    out words of fewer than three characters.
    """

    NAME = "icdar2013"
    SPLITS = ("train", "test", "test_1015", "test_857")
    NEEDS = "the archives of Challenge 2, Task 3, unpacked side by side"
    LISTS: ClassVar = {
        "train": ("Challenge2_Training_Task3_Images_GT/gt.txt", "train/gt.txt"),
        **dict.fromkeys(
            ("test", "test_1015", "test_857"),
            (
                "Challenge2_Test_Task3_GT.txt",
                "Challenge2_Test_Task3_Images/Challenge2_Test_Task3_GT.txt",
                "test/gt.txt",
            ),
        ),
    }
    IMAGES: ClassVar = {
        "train": ("Challenge2_Training_Task3_Images_GT", "train"),
        "test": ("Challenge2_Test_Task3_Images", "test"),
    }

    def left_out(self, path: str, text: str) -> str:
        """Returns why a word is not among the 1,015 or the 857."""
        if self.split == "test_1015" or self.split == "test_857":
            if not _ALPHANUMERIC.fullmatch(text):
                return f"not letters and digits alone: {text!r}"
        if self.split == "test_857" and len(text) < 3:
            return f"fewer than three characters: {text!r}"
        return ""


class ICDAR2015(ICDAR2011):
    """Incidental scene text: 4,468 to train on; 2,077 to test, or 1,811.

    No rule gives the 1,811: besides words with other marks they leave out crops that
    somebody found extreme. So that split takes the list of their file names.
    """

    NAME = "icdar2015"
    SPLITS = ("train", "test", "test_1811")
    NEEDS = "the archives of Challenge 4, Task 4.3, unpacked side by side"
    LISTS: ClassVar = {
        "train": ("ch4_training_word_images_gt/gt.txt", "train/gt.txt"),
        **dict.fromkeys(
            ("test", "test_1811"),
            (
                "Challenge4_Test_Task3_GT.txt",
                "ch4_test_word_images_gt/Challenge4_Test_Task3_GT.txt",
                "test/gt.txt",
            ),
        ),
    }
    IMAGES: ClassVar = {
        "train": ("ch4_training_word_images_gt", "train"),
        "test": ("ch4_test_word_images_gt", "test"),
    }

    def __post_init__(self):
        super().__post_init__()
        listed = None
        if self.split == "test_1811":
            try:
                path = self.find(IC15_LIST)
            except FileNotFoundError:
                raise FileNotFoundError(
                    f"{self.root}: the split test_1811 needs {IC15_LIST}, the names of "
                    "its 1,811 images, one a line: no rule leads from the 2,077 to them"
                ) from None
            listed = frozenset(path.read_text(encoding="utf-8-sig").split())
        object.__setattr__(self, "_listed", listed)

    def left_out(self, path: str, text: str) -> str:
        """Returns whether a word is not among the 1,811."""
        listed = self._listed  # pyright: ignore[reportAttributeAccessIssue]
        return f"not in {IC15_LIST}" if listed and path not in listed else ""


def read_icdar2011(root: str, split: str = "train") -> Iterator[Record | Dropped]:
    """Yields every word of a split, or why it is not used."""
    return read_all(ICDAR2011(root, split))


def read_icdar2013(root: str, split: str = "train") -> Iterator[Record | Dropped]:
    """Yields every word of a split, or why it is not used."""
    return read_all(ICDAR2013(root, split))


def read_icdar2015(root: str, split: str = "train") -> Iterator[Record | Dropped]:
    """Yields every word of a split, or why it is not used."""
    return read_all(ICDAR2015(root, split))
