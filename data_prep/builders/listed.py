"""Readers of datasets whose words are single files, named in a list."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from data_prep import checks
from data_prep.builders.base import Reader
from data_prep.checks import Dropped
from data_prep.inputs import Labelled, list_labels, read_row
from robustscanner_jax.data.label_lines import Row
from robustscanner_jax.data.records import Record


class LabelList(Reader):
    """One list or several, in any format that `labels.py` knows."""

    LISTS: ClassVar[tuple[str, ...]] = ()  # candidates, below the root
    FOLDERS: ClassVar[tuple[str, ...]] = ("",)  # of the images, below the root

    def annotations(self) -> list[Path]:
        """Returns the lists."""
        return self.lists()

    def entries(self) -> Iterator[Labelled]:
        """Yields each row, or why a line gives none."""
        return itertools.chain.from_iterable(map(list_labels, self.lists()))

    def read(self, entry: Labelled) -> list[Record | Dropped]:
        """Returns the record of one line."""
        if isinstance(entry, Dropped):
            return [entry]
        left_out = self.left_out(entry.path, entry.text)
        if left_out:
            return [Dropped(entry.path, checks.NOT_IN_SUBSET, left_out)]
        return [self._read_below(entry)]

    def left_out(self, path: str, text: str) -> str:
        """Returns why the subset of this split leaves a word out, or nothing."""
        return ""

    def lists(self) -> list[Path]:
        """Returns the lists of this split, in the order of its words."""
        return [self.find(*self.LISTS)]

    def folders(self) -> tuple[str, ...]:
        """Returns the folders below the root that may hold the images."""
        return self.FOLDERS

    def _read_below(self, row: Row) -> Record | Dropped:
        """Returns an image of the first folder below the root that holds it."""
        roots = [Path(self.root, folder) for folder in self.folders()]
        holding = next((r for r in roots if os.path.isfile(r / row.path)), roots[0])
        return read_row(holding, row)
