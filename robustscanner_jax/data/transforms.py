"""Per-example transforms: an element of a source becomes a row of a batch."""

import dataclasses
import enum
import functools
import logging
import threading
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from robustscanner_jax.charset import Charset
from robustscanner_jax.data.augment import augment
from robustscanner_jax.data.images import decode_image
from robustscanner_jax.preprocessing import Preprocessing, resize_and_pad

logger = logging.getLogger(__name__)

# Examples named in the log, of each problem and worker process: enough to find the
# cause, and not a line for each of a million labels with a pound sign.
MAX_REPORTED = 10

# One array a key, as `Prepare` says.
BatchRow = dict[str, Any]


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

    Returns one row, or several that differ in their augmentation: where decoding or
    rendering is slower than the device, `variants` of an example feed it.

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
    variants: int = 1
    augment_without: tuple[str, ...] = ()

    def __call__(
        self, element: Mapping[str, Any], rng: np.random.Generator
    ) -> list[BatchRow]:
        """Returns `variants` rows; `rng` drives the augmentation."""
        cv2.setNumThreads(1)  # a worker process an image, not a thread pool an image
        try:
            problem, reason = self._label_problem(element)
            if problem is Problem.NONE:
                image = pixels_of(element)
                tokens = self.charset.to_tokens(element["text"], self.max_len)
                return [
                    self._row(element, *self._distorted(rng, image), tokens, problem)
                    for _ in range(self.variants)
                ]
        except ValueError as error:
            problem, reason = Problem.UNREADABLE, str(error)
        except cv2.error as error:  # such as a strip of more than 65,500 columns
            problem, reason = Problem.UNREADABLE, f"OpenCV refuses it ({error.err})"
        _report(problem, element.get("id", "?"), reason)
        size = (self.rule.height, self.rule.max_width, 3)
        tokens = [self.charset.pad_id] * (self.max_len + 1)
        filler = self._row(
            element, np.zeros(size, np.uint8), self.rule.min_width, tokens, problem
        )
        return [filler] * self.variants

    def _distorted(
        self, rng: np.random.Generator, image: np.ndarray
    ) -> tuple[np.ndarray, int]:
        if self.augment_strength:
            image = augment(rng, image, self.augment_strength, self.augment_without)
        return resize_and_pad(image, self.rule)

    def _label_problem(self, element: Mapping[str, Any]) -> tuple[Problem, str]:
        text = element.get("text", "")
        if "error" in element:
            return Problem.UNREADABLE, element["error"]
        if not text.strip():
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
    def _row(element, image, width, tokens, problem: Problem) -> BatchRow:
        return {
            "id": element.get("id", "?"),
            "image": image,
            "width": np.int32(width),
            "tokens": np.array(tokens, np.int32),
            "weight": np.float32(problem is Problem.NONE),
            "problem": np.int8(problem),
        }


_reporting = threading.Lock()


@functools.lru_cache(maxsize=len(Problem))
def _reported(problem: Problem) -> list[str]:
    return []


def _report(problem: Problem, name: str, reason: str) -> None:
    """Names the first examples with each problem; all are counted in the batches."""
    with _reporting:  # an example of two batches may be read by two threads at once
        names = _reported(problem)
        if len(names) < MAX_REPORTED and name not in names:
            names.append(name)
            last = "; further ones are only counted" * (len(names) == MAX_REPORTED)
            logger.warning("record %s left out: %s%s", name, reason, last)


def pixels_of(element: Mapping[str, Any]) -> np.ndarray:
    """Returns the element's BGR pixels, decoding them where they are encoded."""
    image = element["image"]
    return decode_image(image) if isinstance(image, bytes) else image
