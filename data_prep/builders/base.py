"""What the readers of published datasets share.

A reader is a small picklable object: `entries` streams through the annotation, `read`
turns one entry into records in a worker. `read_all` is both, for a plain loop.
"""

from __future__ import annotations

import abc
import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from data_prep import checks, input_digest
from data_prep.checks import Dropped
from robustscanner_jax.data.images import decode_image
from robustscanner_jax.data.records import Record

_JPEG_QUALITY = 95


@dataclasses.dataclass(frozen=True)
class Reader(abc.ABC):
    """One split of a published dataset.

    Attributes:
      root: the folder that the authors' files were unpacked into.
      split: one of `SPLITS`.
    """

    root: str
    split: str = "train"

    NAME: ClassVar[str]
    SPLITS: ClassVar[tuple[str, ...]]
    NEEDS: ClassVar[str]  # what `root` must hold; for messages and the documentation
    records_per_entry: ClassVar[float] = 1.0

    def __post_init__(self):
        if self.split not in self.SPLITS:
            raise ValueError(
                f"--split of {self.NAME}: expected one of {', '.join(self.SPLITS)}, "
                f"got {self.split!r}"
            )
        if not os.path.isdir(self.root):
            raise FileNotFoundError(
                f"{self.root}: there is no such folder; {self.NAME} needs {self.NEEDS}"
            )

    @property
    def name(self) -> str:
        """Returns the name of the split, which files and reports carry."""
        return f"{self.NAME}_{self.split}"

    @abc.abstractmethod
    def entries(self) -> Iterator[Any]:
        """Yields small picklable things, the same in the same order each time."""

    @abc.abstractmethod
    def read(self, entry: Any) -> Iterable[Record | Dropped]:
        """Returns the records of one entry."""

    @abc.abstractmethod
    def annotations(self) -> list[Path]:
        """Returns the files that say which images and labels this split has."""

    def digest(self) -> str:
        """Returns a digest of the annotations, not of the images."""
        return input_digest.of_files(self.annotations(), self.root)

    def find(self, *candidates: str) -> Path:
        """Returns the first of some paths below `root` that exists."""
        for candidate in candidates:
            path = Path(self.root, candidate)
            if path.exists():
                return path
        raise FileNotFoundError(
            f"{self.root}: found none of {', '.join(candidates)}; {self.NAME} needs "
            f"{self.NEEDS}"
        )


def read_all(reader: Reader) -> Iterator[Record | Dropped]:
    """Yields every record of a reader, or why it is not one."""
    for entry in reader.entries():
        yield from reader.read(entry)


def text_lines(path: Path) -> Iterator[str]:
    """Yields the lines of a text file that are not blank, without their ends.

    Bytes that are not UTF-8 come as lone surrogates, which `check_record` refuses: one
    line is lost then, and not the file.
    """
    with open(
        path, encoding="utf-8-sig", errors="surrogateescape", newline="\n"
    ) as lines:
        for line in lines:
            if line.strip():
                yield line.rstrip("\r\n")


def decode_page(path: Path, record_id: str) -> np.ndarray | Dropped:
    """Returns the BGR pixels of an image that holds several words."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return Dropped(record_id, checks.MISSING, str(error))
    try:
        return decode_image(data)
    except ValueError as error:
        reason = checks.UNREADABLE_IMAGE if data else checks.ZERO_BYTES
        return Dropped(record_id, reason, str(error))


def crop(
    page: np.ndarray,
    box: tuple[float, float, float, float],
    *,
    record_id: str,
    text: str,
    pad: float = 0.0,
    lossless: bool,
) -> Record | Dropped:
    """Returns the part of a page within (left, top, right, bottom), in pixels.

    The box is rounded and, where `pad` makes it larger than the page, cut. A box that
    is empty, or leaves the page by itself, is invalid.
    """
    height, width = page.shape[:2]
    corners = [float(value) for value in box]
    if not np.isfinite(corners).all():
        return Dropped(record_id, checks.INVALID_BOX, f"not finite: {corners}")
    left, top, right, bottom = map(round, corners)
    inside = 0 <= left < right <= width and 0 <= top < bottom <= height
    if not inside:
        detail = f"{left}, {top} to {right}, {bottom} in {width} x {height} pixels"
        return Dropped(record_id, checks.INVALID_BOX, detail)
    margin = round(pad)
    part = page[
        max(0, top - margin) : bottom + margin, max(0, left - margin) : right + margin
    ]
    options = [] if lossless else [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    _, data = cv2.imencode(".png" if lossless else ".jpg", part, options)
    return Record(record_id, data.tobytes(), text)
