"""What the readers of published datasets share.

A reader is a small picklable object: `entries` streams through the annotation, `read`
turns one entry into records in a worker. `read_all` is both, for a plain loop.
"""

from __future__ import annotations

import abc
import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from data_prep import checks
from data_prep.checks import Dropped
from robustscanner_jax.data.images import decode_image
from robustscanner_jax.data.records import Record

_JSON_BLOCK = 1 << 20  # characters
_BETWEEN = frozenset(" \t\r\n,:")  # of no weight where an entry may begin
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
    left, top, right, bottom = (round(float(value)) for value in box)
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


def stream_json_list(path: Path, key: str) -> Iterator[Any]:
    """Yields the entries of the list under `key`, without reading the whole file.

    The first `"key"` counts; what follows the list is not looked at.
    """
    decoder, mark = json.JSONDecoder(), f'"{key}"'
    with open(path, encoding="utf-8-sig") as file:
        text, start = "", 0

        def more() -> bool:
            nonlocal text, start
            block = file.read(_JSON_BLOCK)
            text, start = text[start:] + block, 0
            return bool(block)

        def next_mark() -> str:
            nonlocal start
            while True:
                while text[start : start + 1] in _BETWEEN:
                    start += 1
                if start < len(text) or not more():
                    return text[start : start + 1]

        while mark not in text:
            if not more():
                raise ValueError(f"{path}: expected a key {mark}, there is none")
        start = text.index(mark) + len(mark)
        if next_mark() != "[":
            raise ValueError(f"{path}: expected a list under {mark}")
        start += 1
        while next_mark() != "]":
            try:
                # A number could go on in the next block; objects and strings end.
                entry, start = decoder.raw_decode(text, start)
            except ValueError as error:
                if not more():
                    raise ValueError(
                        f"{path}: not JSON, or cut off ({error})"
                    ) from None
                continue
            yield entry
