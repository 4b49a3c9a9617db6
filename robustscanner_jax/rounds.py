"""Crops that are read in rounds: what is read next depends on what was."""

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from robustscanner_jax.preprocessing import Row
from robustscanner_jax.views import View, counting, unread

T = TypeVar("T")


class Rounds(Generic[T]):
    """The views of some crops, and what was read of them.

    While `rows` are left, read them and `add` their readings.

    Args:
      crops: the views of each, as `Views.of` gives them.
    """

    def __init__(self, crops: Sequence[Sequence[View]]):
        self._crops = crops
        self._readings: list[dict[int, T]] = [{} for _ in crops]
        self._next = self._unread()

    def _unread(self) -> list[tuple[int, int]]:
        return [
            (crop, view)
            for crop, views in enumerate(self._crops)
            for view in unread(views, self._readings[crop])
        ]

    def rows(self) -> list[Row]:
        """Returns what to read in this round; empty once all is read that counts."""
        return [self._crops[crop][view].row for crop, view in self._next]

    def add(self, readings: Iterable[T]) -> None:
        """Takes the reading of each of `rows`, or an exception in its place."""
        for (crop, view), reading in zip(self._next, readings, strict=True):
            self._readings[crop][view] = reading
        self._next = self._unread()

    def surest(self) -> list[tuple[T, View]]:
        """Returns for each crop the reading that counts, and the view it is of."""
        won = map(counting, self._crops, self._readings)
        found = zip(won, self._readings, self._crops, strict=True)
        return [(readings[i], views[i]) for i, readings, views in found]
