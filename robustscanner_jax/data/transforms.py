"""Per-example transforms: an element of a source becomes a row of a batch."""

import dataclasses
import enum
import logging
from typing import Any

import cv2
import grain
import numpy as np

from robustscanner_jax.charset import Charset
from robustscanner_jax.data.augment import augment
from robustscanner_jax.data.images import decode_image
from robustscanner_jax.preprocessing import Preprocessing, resize_and_pad

logger = logging.getLogger(__name__)

Element = dict[str, Any]


class Problem(enum.IntEnum):
    """Why an example gives no training signal; its row becomes filler."""

    NONE = 0
    UNREADABLE = 1  # damaged record or image
    EMPTY_LABEL = 2
    TOO_LONG = 3  # the label and its end token need more steps than the decoder has
    OUTSIDE_CHARSET = 4


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Decodes, augments, resizes and tokenises one element; never raises for bad data.

    Reads `id`, `text` and `image` (encoded bytes, or BGR pixels `[h, w, 3]` uint8), or
    `error`, where the source failed. Writes `id`, `image` `[height, max_width, 3]`
    uint8, `width` int32 (content pixels), `tokens` `[max_len + 1]` int32, `weight`
    float32 and `problem` int8. An element with a problem becomes filler: weight 0, all
    tokens padding, so that it enters no loss; it is named in the log and counted from
    `problem` by the training loop.
    """

    charset: Charset
    rule: Preprocessing
    max_len: int
    augment_strength: float = 0.0

    def __call__(self, element: Element, rng: np.random.Generator) -> Element:
        """Returns the row; `rng` drives the augmentation."""
        cv2.setNumThreads(1)  # a worker process an image, not a thread pool an image
        try:
            problem, reason = self._label_problem(element)
            if problem is Problem.NONE:
                image = pixels_of(element)
                if self.augment_strength:
                    image = augment(rng, image, self.augment_strength)
                pixels, width = resize_and_pad(image, self.rule)
                tokens = self.charset.to_tokens(element["text"], self.max_len)
                return self._row(element, pixels, width, tokens, problem)
        except ValueError as error:
            problem, reason = Problem.UNREADABLE, str(error)
        logger.warning("record %s left out: %s", element.get("id", "?"), reason)
        size = (self.rule.height, self.rule.max_width, 3)
        tokens = [self.charset.pad_id] * (self.max_len + 1)
        return self._row(
            element, np.zeros(size, np.uint8), self.rule.min_width, tokens, problem
        )

    def _label_problem(self, element: Element) -> tuple[Problem, str]:
        text = element.get("text", "")
        if "error" in element:
            return Problem.UNREADABLE, element["error"]
        if not text:
            return Problem.EMPTY_LABEL, "the label is empty"
        if len(text) >= self.max_len:
            return (
                Problem.TOO_LONG,
                f"the label has {len(text)} characters, at most {self.max_len - 1} fit",
            )
        unknown = self.charset.unknown_characters(text)
        if unknown:
            return Problem.OUTSIDE_CHARSET, f"label {text!r} has unknown {unknown!r}"
        return Problem.NONE, ""

    @staticmethod
    def _row(element, image, width, tokens, problem: Problem) -> Element:
        return {
            "id": element.get("id", "?"),
            "image": image,
            "width": np.int32(width),
            "tokens": np.array(tokens, np.int32),
            "weight": np.float32(problem is Problem.NONE),
            "problem": np.int8(problem),
        }


def pixels_of(element: Element) -> np.ndarray:
    """Returns the element's BGR pixels, decoding them where they are encoded."""
    image = element["image"]
    return decode_image(image) if isinstance(image, bytes) else image


class Guarded(grain.sources.RandomAccessDataSource):
    """A source whose damaged records become elements with an `error`."""

    def __init__(self, source: Any):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Element:
        try:
            return self._source[index]
        except Exception as error:  # each format's reader has its own
            name = f"{self._source.name}[{index}]"
            return {"id": name, "error": f"{type(error).__name__}: {error}"}

    def __repr__(self) -> str:
        return f"Guarded({self._source.name!r})"
