"""Every word of a source, read in batches of one shape.

The next batch is decoded and scaled by the host's threads while the device reads this
one. Turned crops (see `rotation`) are collected into batches of the same shape, so that
they cost what they add and nothing is compiled for them.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from robustscanner_jax import rotation
from robustscanner_jax.data.pipeline import evaluation_batches
from robustscanner_jax.data.reads import read_elements
from robustscanner_jax.data.transforms import Element, pixels_of
from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.reading import Reader, Reading
from robustscanner_jax.rotation import ANGLES, Row

# Read as nothing, with no confidence: an image that cannot be decoded is misread.
UNREADABLE = Reading(text="", confidence=0.0, character_confidences=())
# Of a record that is damaged as a whole. Not empty: that would be read right.
LOST_LABEL = "(label lost)"


@dataclasses.dataclass(frozen=True)
class ReadWord:
    """One record and how it was read.

    Attributes:
      number: its place in the source, from 0.
      id, label: of the record.
      reading: `UNREADABLE` where the record is damaged.
      error: what is damaged; None where nothing is.
      size: height and width of the crop in pixels; None where it is damaged.
      row: as it was read, turned by `angle` degrees anti-clockwise.
      angle: one of `rotation.ANGLES`.
      turned: whether it was read at all of them.
    """

    number: int
    id: str
    label: str
    reading: Reading
    error: str | None
    size: tuple[int, int] | None
    row: Row
    angle: int
    turned: bool


class _Measured:
    """A source whose elements also say the crop's `size`, and how it is read turned."""

    def __init__(self, source: Any, rule: Preprocessing, rotate_tall: float | None):
        self.name = source.name
        self._source, self._rule, self._rotate_tall = source, rule, rotate_tall

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Element:
        return self._measured(self._source[index])

    def read_many(self, indices: Sequence[int]) -> list[Element]:
        return [self._measured(e) for e in read_elements(self._source, indices)]

    def _measured(self, element: Element) -> Element:
        if "error" in element:
            return element
        try:
            image = pixels_of(element)
            turned = rotation.turned_rows(image, self._rule, self._rotate_tall)
        except ValueError:
            return element  # the pipeline meets the same error, and keeps the place
        return {**element, "image": image, "size": image.shape[:2], "turned": turned}


@dataclasses.dataclass
class _Crop:
    """A record on its way: the rows to read, and their readings so far."""

    number: int
    element: Element
    rows: list[Row]
    readings: dict[int, Reading] = dataclasses.field(default_factory=dict)

    def read(self) -> ReadWord:
        """Returns the word, once all rows are read."""
        error, label = self.element.get("error"), self.element.get("text", "")
        places = range(len(self.rows))
        won = rotation.best([self.readings[i].character_confidences for i in places])
        return ReadWord(
            number=self.number,
            id=self.element["id"],
            label=label if error is None else label or LOST_LABEL,
            reading=self.readings[won] if error is None else UNREADABLE,
            error=error,
            size=None if error else self.element["size"],
            row=self.rows[won],
            angle=ANGLES[won],
            turned=len(self.rows) > 1,
        )


# Pixels [b, h, w, 3], widths [b], and of each row: its crop, and its place in there.
_Batch = tuple[np.ndarray, np.ndarray, list[tuple[_Crop, int]]]


def read_words(
    reader: Reader, source: Any, *, rotate_tall: float | None = None
) -> Iterator[ReadWord]:
    """Yields every record of a source, read.

    In order, except that a crop which is read turned comes when all its readings are
    there: `number` says where it belongs.

    Args:
      reader: what reads; always a whole batch of its `batch_size`.
      source: `[i]` gives `id`, `image` and `text`, or raises for a damaged record.
      rotate_tall: see `rotation.turned_rows`.

    Raises:
      ValueError: `rotate_tall` is below 1.
    """
    rotation.check_ratio(rotate_tall)
    measured = _Measured(source, reader.preprocessing, rotate_tall)
    waiting: tuple[Any, list[tuple[_Crop, int]]] | None = None
    for image, width, entries in _batches(reader, measured):
        decoded = reader.decode(image, width)
        if waiting:  # its texts are waited for while the device has the next batch
            yield from _finished(reader, *waiting)
        waiting = decoded, entries
    if waiting:
        yield from _finished(reader, *waiting)


def _batches(reader: Reader, source: _Measured) -> Iterator[_Batch]:
    size = reader.batch_size
    numbers = itertools.count()
    aside: list[tuple[_Crop, int]] = []
    for batch, elements in evaluation_batches(
        source, rule=reader.preprocessing, batch_size=size
    ):
        crops = []
        for i, element in enumerate(elements):
            # Copied: a crop that is kept must not keep its batch.
            upright = batch["image"][i].copy(), int(batch["width"][i])
            rows = [upright, *element.pop("turned", ())]
            crops.append(_Crop(next(numbers), element, rows))
        yield batch["image"], batch["width"], [(crop, 0) for crop in crops]
        aside += [(crop, i) for crop in crops for i in range(1, len(crop.rows))]
        while len(aside) >= size:
            yield _turned_batch(aside[:size], size)
            aside = aside[size:]
    if aside:
        yield _turned_batch(aside, size)


def _turned_batch(entries: list[tuple[_Crop, int]], size: int) -> _Batch:
    rows = [crop.rows[i] for crop, i in entries]
    rows += [rows[0]] * (size - len(rows))
    pixels, widths = zip(*rows, strict=True)
    return np.stack(pixels), np.asarray(widths, np.int32), entries


def _finished(
    reader: Reader, decoded: Any, entries: list[tuple[_Crop, int]]
) -> Iterator[ReadWord]:
    readings = reader.to_readings(decoded, len(entries))
    for (crop, i), reading in zip(entries, readings, strict=True):
        crop.readings[i] = reading
        if len(crop.readings) == len(crop.rows):
            yield crop.read()
