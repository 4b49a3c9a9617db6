"""What is kept of the words of a benchmark while they are read."""

import heapq
from typing import TypeVar

from robustscanner_jax.metrics import normalise_label, word_correct
from robustscanner_jax.predictions import Prediction
from robustscanner_jax.report import Sample
from robustscanner_jax.word_stream import ReadWord

NUM_SAMPLES = 40
NUM_MISTAKES = 24

T = TypeVar("T")


class Tally:
    """Collects the words of one benchmark, in whatever order they come.

    Args:
      name: of the benchmark.
      count: words that will come.
      protocol: a key of `metrics.PROTOCOLS`.
      channel_order: "BGR" or "RGB", of the words' rows.

    Attributes:
      unreadable: words whose record is damaged.
      turned, closer: words that were also read so.
      turned_won, closer_won: of these, where such a reading counts.
    """

    def __init__(self, name: str, count: int, protocol: str, channel_order: str):
        self.unreadable = 0
        self.turned = self.turned_won = self.closer = self.closer_won = 0
        self._name, self._protocol = name, protocol
        self._stride = max(1, count // NUM_SAMPLES)
        self._bgr = channel_order == "BGR"
        self._predictions: dict[int, Prediction] = {}
        self._sizes: dict[int, tuple[int, int] | None] = {}
        self._samples: dict[int, Sample] = {}
        self._mistakes: list[tuple[float, int, ReadWord]] = []

    def add(self, word: ReadWord) -> None:
        """Takes one word; each comes once."""
        reading = word.reading
        self._predictions[word.number] = Prediction(
            word.id, word.label, reading.text, reading.confidence, self._name
        )
        self._sizes[word.number] = word.size
        self.unreadable += word.error is not None
        self.turned += word.turned
        self.turned_won += word.view.angle != 0
        self.closer += word.looked_closer
        self.closer_won += word.view.closer
        right = word_correct(reading.text, word.label, self._protocol)
        place, rest = divmod(word.number + 1, self._stride)
        if rest == 0 and place <= NUM_SAMPLES:
            self._samples[word.number] = self._sample(word, right)
        scored = normalise_label(word.label, self._protocol) is not None
        if scored and not right and word.error is None:
            # Of two that are equally sure, the earlier one stays.
            entry = reading.confidence, -word.number, word
            heapq.heappush(self._mistakes, entry)
            if len(self._mistakes) > NUM_MISTAKES:
                heapq.heappop(self._mistakes)

    def _sample(self, word: ReadWord, right: bool) -> Sample:
        pixels, width = word.view.row
        image = pixels[:, :width, ::-1] if self._bgr else pixels[:, :width]
        reading = word.reading
        return Sample(image, word.label, reading.text, reading.confidence, right)

    @property
    def predictions(self) -> list[Prediction]:
        """One a word, in the order of the source."""
        return _in_order(self._predictions)

    @property
    def sizes(self) -> list[tuple[int, int] | None]:
        """Height and width of each crop in pixels; None where it is unreadable."""
        return _in_order(self._sizes)

    @property
    def samples(self) -> list[Sample]:
        """At most `NUM_SAMPLES` pictures from all over the source, in order."""
        return _in_order(self._samples)

    @property
    def mistakes(self) -> list[ReadWord]:
        """At most `NUM_MISTAKES` words misread, that with most confidence first."""
        return [word for _, _, word in sorted(self._mistakes, reverse=True)]


def _in_order(by_number: dict[int, T]) -> list[T]:
    return [by_number[number] for number in sorted(by_number)]
