"""Every word of a source, read in batches of one shape.

The next batch is decoded and scaled by the host's threads while the device reads this
one. Further views of crops (see `views`) are collected into batches of the same shape,
so that they cost what they add and nothing is compiled for them.
"""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from robustscanner_jax.data.pipeline import EvaluationRecord, evaluation_batches
from robustscanner_jax.data.reads import Source
from robustscanner_jax.reading import Reader, Reading
from robustscanner_jax.views import AS_IT_IS, View, Views, counting, unread

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
      view: whose reading counts.
      turned: whether it was read at all angles.
      looked_closer: whether it was read closer.
    """

    number: int
    id: str
    label: str
    reading: Reading
    error: str | None
    size: tuple[int, int] | None
    view: View
    turned: bool
    looked_closer: bool


@dataclasses.dataclass
class _Crop:
    """A record on its way: its views, how many were asked for, and their readings."""

    number: int
    record: EvaluationRecord
    views: list[View]
    asked: int = 0
    readings: dict[int, Reading] = dataclasses.field(default_factory=dict)

    @property
    def waits(self) -> bool:
        """Whether readings that were asked for are still to come."""
        return len(self.readings) < self.asked

    def ask(self) -> list[int]:
        """Returns the places of the views to be read next; none: it has been read."""
        places = unread(self.views, self.readings)
        self.asked += len(places)
        return places

    def read(self) -> ReadWord:
        """Returns the word, once all is read that counts."""
        error, label = self.record.error, self.record.text
        won = counting(self.views, self.readings)
        view = self.views[won]
        read = [self.views[i] for i in self.readings]
        return ReadWord(
            number=self.number,
            id=self.record.id,
            label=label if error is None else label or LOST_LABEL,
            reading=self.readings[won].in_view(view) if error is None else UNREADABLE,
            error=error,
            size=self.record.size,
            view=view,
            turned=any(one.angle for one in read),
            looked_closer=any(one.closer for one in read),
        )


# A view of a crop: the crop, and the view's place.
_Entry = tuple[_Crop, int]
# Pixels [b, h, w, 3], widths [b], and what each row is.
_Batch = tuple[np.ndarray, np.ndarray, list[_Entry]]


def read_words(
    reader: Reader, source: Source, *, views: Views = AS_IT_IS
) -> Iterator[list[ReadWord]]:
    """Yields every record of a source, read: a list for each batch that was computed.

    In order, except that a crop of which several views are read comes when all their
    readings are there: `number` says where it belongs. A batch that ends no word is an
    empty list.

    The first batch, in which the reader may compile, is finished before the second one
    is begun, so that a clock can be started in between.

    Args:
      reader: what reads; always a whole batch of its `batch_size`.
      source: its records; a damaged one raises.
      views: of a crop that may be read.
    """
    aside: collections.deque[_Entry] = collections.deque()
    computing: tuple[Any, list[_Entry]] | None = None
    batches = _full_batches(reader, source, views, aside)
    for number, (image, width, entries) in enumerate(batches):
        decoded = reader.decode(image, width)
        if computing:  # its texts are waited for while the device has the next batch
            yield _finished(reader, *computing, aside)
        computing = decoded, entries
        if number == 0:
            yield _finished(reader, *computing, aside)
            computing = None
    while computing or aside:
        if computing:
            yield _finished(reader, *computing, aside)
            computing = None
        else:
            image, width, entries = _gathered(aside, reader.batch_size)
            computing = reader.decode(image, width), entries


def _full_batches(
    reader: Reader, source: Source, views: Views, aside: collections.deque[_Entry]
) -> Iterator[_Batch]:
    """Yields the crops as they are, and what was put aside as soon as it fills a batch.

    The last batch of crops need not be full.
    """
    size, rule = reader.batch_size, reader.preprocessing
    numbers = itertools.count()
    for batch, records in evaluation_batches(
        source,
        rule=rule,
        batch_size=size,
        more_views=functools.partial(views.more, rule=rule),
    ):
        entries = []
        for i, record in enumerate(records):
            # Copied: a crop that is kept must not keep its batch.
            first = View((batch["image"][i].copy(), int(batch["width"][i])))
            crop = _Crop(next(numbers), record, [first, *record.more_views])
            now, *later = crop.ask()
            entries.append((crop, now))
            aside += ((crop, place) for place in later)
        yield batch["image"], batch["width"], entries
        while len(aside) >= size:
            yield _gathered(aside, size)


def _gathered(aside: collections.deque[_Entry], size: int) -> _Batch:
    """Takes a batch of what was put aside, filled up where there is less."""
    entries = [aside.popleft() for _ in range(min(size, len(aside)))]
    rows = [crop.views[place].row for crop, place in entries]
    rows += [rows[0]] * (size - len(rows))
    pixels, widths = zip(*rows, strict=True)
    return np.stack(pixels), np.asarray(widths, np.int32), entries


def _finished(
    reader: Reader,
    decoded: Any,
    entries: list[_Entry],
    aside: collections.deque[_Entry],
) -> list[ReadWord]:
    """Returns the words that this ends, and puts aside what is to be read of others."""
    words = []
    readings = reader.to_readings(decoded, len(entries))
    for (crop, place), reading in zip(entries, readings, strict=True):
        crop.readings[place] = reading
        if crop.waits:
            continue
        if places := crop.ask():
            aside += ((crop, place) for place in places)
        else:
            words.append(crop.read())
    return words
