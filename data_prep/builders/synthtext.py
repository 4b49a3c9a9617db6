"""SynthText's word crops, and SynthAdd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_prep import checks
from data_prep.builders.base import Reader, crop, decode_page
from data_prep.builders.listed import LabelList
from data_prep.builders.mat5 import stream_cells
from data_prep.checks import Dropped
from robustscanner_jax.data.records import Record


class SynthText(Reader):
    """Words cut out of pages, by the rule of ABINet and PARSeq.

    The crop is the upright box around the word's four corners, rounded. A page whose
    boxes and words differ in number is dropped as a whole. gt.mat is streamed.
    """

    NAME = "synthtext"
    SPLITS = ("train",)
    NEEDS = "SynthText.zip unpacked (gt.mat and the folders 1 to 200)"
    records_per_entry = 8.0

    def annotations(self) -> list[Path]:
        """Returns the table."""
        return [self.find("gt.mat", "SynthText/gt.mat")]

    def entries(self) -> Iterator[tuple[str, np.ndarray, list[str]]]:
        """Yields (page, corners `[2, 4, n]` or `[2, 4]`, strings) of each page."""
        (path,) = self.annotations()
        columns = [stream_cells(path, key) for key in ("imnames", "wordBB", "txt")]
        for names, corners, strings in zip(*columns, strict=True):
            yield names[0], np.asarray(corners, np.float32), list(strings)

    def read(self, entry: tuple[str, np.ndarray, list[str]]) -> list[Record | Dropped]:
        """Returns the words of one page."""
        name, corners, strings = entry
        words = [word for string in strings for word in string.split()]
        corners = corners.reshape(2, 4, -1)  # MATLAB drops the last axis of one word
        if corners.shape[2] != len(words):
            detail = f"{corners.shape[2]} boxes, {len(words)} words: {words[:8]}"
            return [Dropped(name, checks.COUNT_MISMATCH, detail)]
        (table,) = self.annotations()
        page = decode_page(table.parent / name, name)
        if isinstance(page, Dropped):
            return [page] * len(words)
        return [
            crop(
                page,
                (*corners[:, :, i].min(axis=1), *corners[:, :, i].max(axis=1)),
                record_id=f"{name}#{i}",
                text=word,
                lossless=False,
            )
            for i, word in enumerate(words)
        ]


class SynthAdd(LabelList):
    """1.2 million rendered words with marks, as OpenMMLab lists them."""

    NAME = "synthadd"
    SPLITS = ("train",)
    NEEDS = "SynthText_Add.zip unpacked, and OpenMMLab's train_labels.json beside it"
    LISTS = ("train_labels.json", "label.json", "labels.json", "label.txt")
    FOLDERS = ("", "SynthText_Add")
