"""Readers of datasets whose words are single files, named in a list."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from data_prep.builders.base import Reader, stream_json_list
from data_prep.checks import Dropped
from data_prep.inputs import read_image
from robustscanner_jax.data.labels import detect_label_format, read_labels
from robustscanner_jax.data.records import Record


class LabelList(Reader):
    """A list in any format that `labels.py` knows; MMOCR's json is streamed."""

    LISTS: ClassVar[dict[str, tuple[str, ...]]]  # split -> candidates below the root
    FOLDERS: ClassVar[tuple[str, ...]] = ("",)  # of the images, below the root

    def entries(self) -> Iterator[tuple[str, str]]:
        """Yields (path, text)."""
        path = self.find(*self.LISTS[self.split])
        yield from list_labels(path)

    def read(self, entry: tuple[str, str]) -> list[Record | Dropped]:
        """Returns the record of one line."""
        return [self.read_below(self.FOLDERS, *entry)]

    def read_below(
        self, folders: tuple[str, ...], path: str, text: str
    ) -> Record | Dropped:
        """Returns an image of the first folder below the root that holds it."""
        roots = [Path(self.root, folder) for folder in folders]
        holding = next((r for r in roots if os.path.isfile(r / path)), roots[0])
        return read_image(holding, path, text)


def list_labels(path: Path) -> Iterator[tuple[str, str]]:
    """Yields (image path, text) of a label file; ValueError names a bad line."""
    if detect_label_format(os.fspath(path)) != "MMOCR json":
        for row in read_labels(os.fspath(path)):
            yield row.path, row.text
        return
    for number, entry in enumerate(stream_json_list(path, "data_list")):
        try:
            (instance,) = entry["instances"]
            yield str(entry["img_path"]), str(instance["text"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(
                f"{path}, data_list[{number}]: expected img_path and one instance with "
                f"its text, got {str(entry)[:80]}"
            ) from None
