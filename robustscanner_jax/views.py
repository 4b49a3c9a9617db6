"""Which views of a crop are read besides the crop as it is, and which reading counts.

Turned: a tall crop is also read turned by 90 and 270 degrees, the rule of MMOCR's
published test-time augmentation. The reading with the highest mean confidence of its
characters counts. Not the probability of the whole text: that favours short ones, and a
tall crop read upright is often a single letter.

Closer: a crop that is not read surely is read again without its edges, in case other
lines or much of the background were in view. Two closer views, both with its middle.
One of them counts where its text is far more probable. Not where it is a little more
probable: edges that are cut off may hold letters, and a shorter text is more probable.

No JAX in here: exported networks read by the same rules.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from robustscanner_jax.preprocessing import Preprocessing, Row, resize_and_pad

# Degrees, anti-clockwise. The first is how every crop is read.
ANGLES = (0, 90, 270)
# Height and width of the closer views, shares of the crop's: a little closer all
# around, and the middle line of three. docs/evaluate.md has what they gain.
CLOSER = ((0.8, 0.9), (0.65, 1.0))
# A text with a lower probability is looked at closer: any bound from 0.8 to 0.95 gains
# as much. Below it lies a third of real crops.
UNSURE = 0.9
# A closer reading counts where it is so many times as probable. From 1.3 to 1.5 makes
# little difference; at 1, one in a hundred words without context loses letters.
FAR_SURER = 1.4


class View(NamedTuple):
    """One way to look at a crop.

    Attributes:
      row: what is read.
      angle: by which the crop is turned, one of `ANGLES`.
      closer: whether it is without the crop's edges.
    """

    row: Row
    angle: int = 0
    closer: bool = False

    @property
    def description(self) -> str:
        """What is special of the view, for people; empty for the crop as it is."""
        turned = [f"turned by {self.angle}°"] if self.angle else []
        return ", ".join(turned + ["closer"] * self.closer)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Views:
    """Which views there are of a crop.

    Attributes:
      rotate_tall: crops over so many times as tall as wide are turned; None: none.
      look_closer: whether crops that are not read surely are looked at closer.

    Raises:
      ValueError: `rotate_tall` is below 1, or `look_closer` neither true nor false.
    """

    rotate_tall: float | None = None
    look_closer: bool = False

    def __post_init__(self):
        ratio = self.rotate_tall
        if ratio is not None and not 1 <= ratio < math.inf:
            raise ValueError(
                "rotate_tall: expected at least 1 (crops taller than wide are turned), "
                f"got {ratio}"
            )
        if not isinstance(self.look_closer, bool):
            raise ValueError(
                f"look_closer: expected True or False, got {self.look_closer!r}"
            )

    def of(self, image: UInt8[np.ndarray, "h w 3"], rule: Preprocessing) -> list[View]:
        """Returns all views of a BGR crop that may be read, the crop as it is first.

        Args:
          image: the crop's pixels.
          rule: of the network that reads.

        Raises:
          ValueError: the image is not what `resize_and_pad` takes.
        """
        return [View(resize_and_pad(image, rule)), *self.more(image, rule)]

    def more(
        self, image: UInt8[np.ndarray, "h w 3"], rule: Preprocessing
    ) -> list[View]:
        """Returns what `of` does, without the first."""
        views = []
        for angle in self._angles(image):
            turned = image
            if angle:
                turned = np.ascontiguousarray(np.rot90(image, angle // 90))
                views.append(View(resize_and_pad(turned, rule), angle))
            if self.look_closer:
                parts = [_middle(turned, *part) for part in CLOSER]
                views += [
                    View(resize_and_pad(part, rule), angle, closer=True)
                    for part in parts
                    if part.shape != turned.shape  # of a few pixels nothing is cut off
                ]
        return views

    def _angles(self, image: np.ndarray) -> Sequence[int]:
        height, width = image.shape[:2]
        tall = self.rotate_tall is not None and height > self.rotate_tall * width
        return ANGLES if tall else ANGLES[:1]


AS_IT_IS = Views()


def _middle(image: np.ndarray, height: float, width: float) -> np.ndarray:
    """Returns the middle of an image, shares of its height and width; never nothing."""
    rows, columns = image.shape[:2]
    top, left = round(rows * (1 - height) / 2), round(columns * (1 - width) / 2)
    return np.ascontiguousarray(image[top : rows - top, left : columns - left])


def unread(views: Sequence[View], readings: Mapping[int, Any]) -> list[int]:
    """Returns which views of a crop are to be read next; none: it has been read.

    Args:
      views: of one crop, as `Views.of` gives them.
      readings: of views read so far, by place: whatever has a `confidence`, the
        probability of the text, and `character_confidences`. What has neither, such as
        an exception in its place, failed.
    """
    whole = [i for i, view in enumerate(views) if not view.closer]
    missing = [i for i in whole if i not in readings]
    if missing:
        return missing
    surest = _surest_whole(views, readings)
    if _probability(readings[surest], failed=1.0) >= UNSURE:  # it would fail again
        return []
    return [i for i in _closer(views, surest) if i not in readings]


def counting(views: Sequence[View], readings: Mapping[int, Any]) -> int:
    """Returns the place of the reading that counts, of those of one crop.

    Of readings of the whole crop that fail, are empty, or are equally sure, the first
    counts, which is the crop as it is.

    Args:
      views, readings: as for `unread`, which says that nothing is missing.
    """
    surest = _surest_whole(views, readings)
    closer = [i for i in _closer(views, surest) if i in readings]
    if not closer:
        return surest
    best = max(closer, key=lambda i: _probability(readings[i]))
    enough = FAR_SURER * _probability(readings[surest])
    return best if _probability(readings[best]) > enough else surest


def _surest_whole(views: Sequence[View], readings: Mapping[int, Any]) -> int:
    """Returns the place of the surest view of the whole crop: the angle that counts."""
    whole = (i for i, view in enumerate(views) if not view.closer)
    return max(whole, key=lambda i: _mean_confidence(readings[i]))


def _closer(views: Sequence[View], place: int) -> list[int]:
    """Returns the places of the closer views of the same angle."""
    angle = views[place].angle
    return [i for i, v in enumerate(views) if v.closer and v.angle == angle]


def _probability(reading: Any, failed: float = 0.0) -> float:
    return getattr(reading, "confidence", failed)


def _mean_confidence(reading: Any) -> float:
    confidences = getattr(reading, "character_confidences", ())
    return sum(confidences) / len(confidences) if confidences else 0.0
