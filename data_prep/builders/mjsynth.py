"""MJSynth (Synth90k): 8.9 million rendered words, one file each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from data_prep import checks
from data_prep.builders.base import Reader, text_lines
from data_prep.checks import Dropped
from data_prep.inputs import read_image
from robustscanner_jax.data.records import Record

_FOLDERS = ("", "90kDICT32px", "mnt/ramdisk/max/90kDICT32px")


class MJSynth(Reader):
    """A line is `./3000/7/182_slinking_71711.jpg 71711`; the label is in the name.

    Some files of the archive are damaged. They are found by decoding every image, as
    everything is, and not by a list.
    """

    NAME = "mjsynth"
    SPLITS = ("train", "val", "test", "all")
    NEEDS = "mjsynth.tar.gz unpacked (annotation_train.txt and the folders beside it)"

    def annotations(self) -> list[Path]:
        """Returns the list."""
        part = "" if self.split == "all" else f"_{self.split}"
        candidates = (os.path.join(f, f"annotation{part}.txt") for f in _FOLDERS)
        return [self.find(*candidates)]

    def entries(self) -> Iterator[str]:
        """Yields the lines of the annotation."""
        return map(str.strip, text_lines(*self.annotations()))

    def read(self, entry: str) -> list[Record | Dropped]:
        """Returns the record of one line."""
        path = entry.rpartition(" ")[0] or entry
        path = path.removeprefix("./")
        fields = Path(path).stem.split("_")
        if len(fields) != 3:
            detail = f"expected NUMBER_label_INDEX.jpg INDEX, got {entry[:80]!r}"
            return [Dropped(path, checks.UNREADABLE_RECORD, detail)]
        (annotation,) = self.annotations()
        return [read_image(annotation.parent, path, fields[1])]
