"""Whether a reader could see the text."""

import dataclasses

import cv2
import numpy as np

_NEAR = np.ones((5, 5), np.uint8)


@dataclasses.dataclass(frozen=True)
class Regions:
    """Where the ink is and where its surroundings are, [h, w] uint8, 0 or 255."""

    ink: np.ndarray
    around: np.ndarray


def find_regions(shape: np.ndarray) -> Regions | None:
    """Returns the regions of a shape's coverage [h, w] uint8, None if too faint.

    The surroundings are what lies within two pixels of the shape, inside letters too.
    """
    _, ink = cv2.threshold(shape, 150, 255, cv2.THRESH_BINARY)
    if cv2.countNonZero(ink) < 12:
        return None
    _, touched = cv2.threshold(shape, 40, 255, cv2.THRESH_BINARY)
    around = cv2.subtract(cv2.dilate(touched, _NEAR), touched)
    if cv2.countNonZero(around) < 12:
        return None
    return Regions(ink, around)


def resize_regions(regions: Regions, width: int, height: int) -> Regions:
    """Returns the regions for a picture that was enlarged."""
    size = (width, height)
    ink = cv2.resize(regions.ink, size, interpolation=cv2.INTER_NEAREST)
    around = cv2.resize(regions.around, size, interpolation=cv2.INTER_NEAREST)
    return Regions(ink, around)


def is_visible(
    grey: np.ndarray, regions: Regions, *, contrast: float, clutter: float
) -> bool:
    """Returns whether ink and surroundings differ enough in luminance.

    Args:
      grey: the picture [h, w], float32 or uint8, of 255.
      regions: of the same size.
      contrast: least difference of the two means.
      clutter: added for each unit of the surroundings' standard deviation.
    """
    ink_mean, _ = cv2.meanStdDev(grey, mask=regions.ink)
    mean, deviation = cv2.meanStdDev(grey, mask=regions.around)
    least = contrast + clutter * float(deviation[0, 0])
    return abs(float(ink_mean[0, 0]) - float(mean[0, 0])) >= least


def is_visible_throughout(
    grey: np.ndarray, regions: Regions, *, contrast: float, clutter: float
) -> bool:
    """Returns whether each third of the width is visible: glare may hide one.

    The arguments are those of `is_visible`. A third without ink counts as visible.
    """
    width = grey.shape[1]
    for part in range(3):
        columns = slice(part * width // 3, (part + 1) * width // 3)
        ink, around = regions.ink[:, columns], regions.around[:, columns]
        if cv2.countNonZero(ink) < 4 or cv2.countNonZero(around) < 4:
            continue
        third = Regions(ink, around)
        if not is_visible(grey[:, columns], third, contrast=contrast, clutter=clutter):
            return False
    return True
