"""Reading tall crops turned as well: which ones, and which of their readings counts.

The rule of MMOCR's published test-time augmentation: a crop taller than wide is also
read turned by 90 and 270 degrees, and the reading with the highest mean confidence of
its characters counts. Not the probability of the whole text: that favours short ones,
and a tall crop read upright is often a single letter.

No JAX in here: exported networks read tall crops by the same rule.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from robustscanner_jax.preprocessing import Preprocessing, resize_and_pad

# Degrees, anti-clockwise. The first is how every crop is read.
ANGLES = (0, 90, 270)

# What `resize_and_pad` returns: padded pixels, and the width of the content in pixels.
Row = tuple[np.ndarray, int]


def check_ratio(rotate_tall: float | None) -> None:
    """Raises `ValueError` unless it is None (nothing is turned) or at least 1."""
    if rotate_tall is not None and not 1 <= rotate_tall < math.inf:
        raise ValueError(
            "rotate_tall: expected at least 1 (crops taller than wide are turned), "
            f"got {rotate_tall}"
        )


def turned_rows(
    image: UInt8[np.ndarray, "h w 3"], rule: Preprocessing, rotate_tall: float | None
) -> list[Row]:
    """Returns what to read of a BGR crop besides the crop as it is.

    Args:
      image: the crop's pixels.
      rule: of the network that reads.
      rotate_tall: crops over so many times as tall as wide are turned; None: none.

    Returns a row for each of `ANGLES[1:]`, or none where the crop is not tall.

    Raises:
      ValueError: the image is tall and not what `resize_and_pad` takes.
    """
    if rotate_tall is None or not image.shape[0] > rotate_tall * image.shape[1]:
        return []
    return [
        resize_and_pad(np.ascontiguousarray(np.rot90(image, angle // 90)), rule)
        for angle in ANGLES[1:]
    ]


def crop_rows(
    image: UInt8[np.ndarray, "h w 3"], rule: Preprocessing, rotate_tall: float | None
) -> list[Row]:
    """Returns the rows to read of a BGR crop: as it is first, then turned ones.

    Raises:
      ValueError: the image is not what `resize_and_pad` takes.
    """
    upright = resize_and_pad(image, rule)
    return [upright, *turned_rows(image, rule, rotate_tall)]


def best(character_confidences: Sequence[Sequence[float]]) -> int:
    """Returns which of some readings has the highest mean character confidence.

    An empty reading counts as 0. Of equal ones the first wins, which is the upright.
    """
    scores = [sum(c) / len(c) if c else 0.0 for c in character_confidences]
    return scores.index(max(scores))
