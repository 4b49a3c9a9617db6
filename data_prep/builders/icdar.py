"""ICDAR 2011 (born digital), 2013 and 2015: word recognition, task 3 of each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from data_prep.builders.listed import LabelList

_ALPHANUMERIC = re.compile(r"[0-9A-Za-z]+")
IC15_LIST = "IC15_1811.txt"


class ICDAR2011(LabelList):
    """Words of web pages and e-mail, born digital.

    The training images lie beside their list; the list of the test images is a download
    of its own. Subsets of the test images are splits whose names begin with `test`.
    """

    NAME = "icdar2011"
    SPLITS = ("train", "test")
    NEEDS = "the archives of Challenge 1, Task 3, unpacked side by side"
    TRAIN: ClassVar[str] = "Challenge1_Training_Task3_Images_GT"
    TEST: ClassVar[str] = "Challenge1_Test_Task3_Images"
    TEST_LIST: ClassVar[str] = "Challenge1_Test_Task3_GT.txt"

    def lists(self) -> list[Path]:
        """Returns the list of this split."""
        if self.split == "train":
            return [self.find(f"{self.TRAIN}/gt.txt", "train/gt.txt")]
        candidates = (self.TEST_LIST, f"{self.TEST}/{self.TEST_LIST}", "test/gt.txt")
        return [self.find(*candidates)]

    def folders(self) -> tuple[str, ...]:
        """Returns the folders below the root that may hold the images."""
        return (self.TRAIN, "train") if self.split == "train" else (self.TEST, "test")


class ICDAR2013(ICDAR2011):
    """Focused scene text: 848 to train on; 1,095 to test, or 1,015, or 857.

    1,015 leaves out words with a character that is no letter or digit; 857 also leaves
    out words of fewer than three characters.
    """

    NAME = "icdar2013"
    SPLITS = ("train", "test", "test_1015", "test_857")
    NEEDS = "the archives of Challenge 2, Task 3, unpacked side by side"
    TRAIN = "Challenge2_Training_Task3_Images_GT"
    TEST = "Challenge2_Test_Task3_Images"
    TEST_LIST = "Challenge2_Test_Task3_GT.txt"

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
    TRAIN = "ch4_training_word_images_gt"
    TEST = "ch4_test_word_images_gt"
    TEST_LIST = "Challenge4_Test_Task3_GT.txt"

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
            if not listed:
                raise ValueError(f"{path}: expected the names of images, got none")
        object.__setattr__(self, "_listed", listed)

    def annotations(self) -> list[Path]:
        """Returns the list, and that of the 1,811."""
        subset = [self.find(IC15_LIST)] if self.split == "test_1811" else []
        return [*self.lists(), *subset]

    def left_out(self, path: str, text: str) -> str:
        """Returns whether a word is not among the 1,811."""
        listed = self._listed  # pyright: ignore[reportAttributeAccessIssue]
        left_out = listed is not None and path not in listed
        return f"not in {IC15_LIST}" if left_out else ""
