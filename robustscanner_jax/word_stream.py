"""Every word of a source, read in batches of one shape.

The next batch is decoded and scaled by the host's threads while the device reads this
one. Turned crops (see `rotation`) are collected into batches of the same shape, so that
they cost what they add and nothing is compiled for them.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from robustscanner_jax import rotation
from robustscanner_jax.data.pipeline import EvaluationRecord, evaluation_batches
from robustscanner_jax.data.reads import Source
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


@dataclasses.dataclass
class _Crop:
    """A record on its way: the rows to read, and their readings so far."""

    number: int
    record: EvaluationRecord
    rows: list[Row]
    readings: dict[int, Reading] = dataclasses.field(default_factory=dict)

    def read(self) -> ReadWord:
        """Returns the word, once all rows are read."""
        error, label = self.record.error, self.record.text
        places = range(len(self.rows))
        won = rotation.best([self.readings[i].character_confidences for i in places])
        return ReadWord(
            number=self.number,
            id=self.record.id,
            label=label if error is None else label or LOST_LABEL,
            reading=self.readings[won] if error is None else UNREADABLE,
            error=error,
            size=self.record.size,
            row=self.rows[won],
            angle=ANGLES[won],
            turned=len(self.rows) > 1,
        )


# Pixels [b, h, w, 3], widths [b], and of each row: its crop, and its place in there.
_Batch = tuple[np.ndarray, np.ndarray, list[tuple[_Crop, int]]]


def read_words(
    reader: Reader, source: Source, *, rotate_tall: float | None = None
) -> Iterator[list[ReadWord]]:
    """Yields every record of a source, read: a list for each batch that was computed.

    In order, except that a crop which is read turned comes when all its readings are
    there: `number` says where it belongs. A batch that ends no word is an empty list.

    The first batch, in which the reader may compile, is finished before the second one
    is begun, so that a clock can be started in between.

    Args:
      reader: what reads; always a whole batch of its `batch_size`.
      source: its records; a damaged one raises.
      rotate_tall: see `rotation.turned_rows`.

    Raises:
      ValueError: `rotate_tall` is below 1.
    """
    rotation.check_ratio(rotate_tall)
    waiting: tuple[Any, list[tuple[_Crop, int]]] | None = None
    for number, batch in enumerate(_batches(reader, source, rotate_tall)):
        image, width, entries = batch
        decoded = reader.decode(image, width)
        if number == 0:
            yield _finished(reader, decoded, entries)
            continue
        if waiting:  # its texts are waited for while the device has the next batch
            yield _finished(reader, *waiting)
        waiting = decoded, entries
    if waiting:
        yield _finished(reader, *waiting)


def _batches(
    reader: Reader, source: Source, rotate_tall: float | None
) -> Iterator[_Batch]:
    size, rule = reader.batch_size, reader.preprocessing
    turned = functools.partial(rotation.turned_rows, rule=rule, rotate_tall=rotate_tall)
    numbers = itertools.count()
    aside: list[tuple[_Crop, int]] = []
    for batch, records in evaluation_batches(
        source, rule=rule, batch_size=size, more_rows=turned
    ):
        crops = []
        for i, record in enumerate(records):
            # Copied: a crop that is kept must not keep its batch.
            upright = batch["image"][i].copy(), int(batch["width"][i])
            rows = [upright, *record.more_rows]
            crops.append(_Crop(next(numbers), record, rows))
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
) -> list[ReadWord]:
    words = []
    readings = reader.to_readings(decoded, len(entries))
    for (crop, i), reading in zip(entries, readings, strict=True):
        crop.readings[i] = reading
        if len(crop.readings) == len(crop.rows):
            words.append(crop.read())
    return words
