"""Words of a page, cut out where a text detector found them.

A region is the outline of one word as it reads, in pixels of the page:

- two points: corners of an upright box, top left and bottom right;
- four: the corners clockwise from the text's top left, as ICDAR, PaddleOCR and MMOCR
  write them; anticlockwise from there is understood as well;
- any other even number: along the top of a bent word from its beginning to its end,
  then back along its bottom, as Total-Text and CTW1500 write them.

No JAX in here: exported networks read regions too.
"""

import json
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

Points = Float32[np.ndarray, "n 2"]

_SHAPES = "two corners of a box, four corners, or along the top and back at the bottom"
_FARTHEST = 1_000_000  # a float32 counts halves of pixels up to here
# A crop is at most so many times as large as its page, however a region is bent.
_LARGEST = 2


def as_points(region: Any) -> Points:
    """Returns the points of a region, given as pairs or as x1, y1, x2, y2, ...

    Raises:
      ValueError: of no form that the module names, or it encloses nothing.
    """
    try:
        points: Any = np.asarray(region, np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.zeros(0)
    if points.ndim == 1 and points.size % 2 == 0:
        points = points.reshape(-1, 2)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 2 or len(points) % 2:
        shown = json.dumps(region, default=str)[:80]
        raise ValueError(f"region: expected {_SHAPES}, got {shown}")
    if not (np.abs(points) < _FARTHEST).all():  # neither is NaN
        raise ValueError(
            f"region: expected pixels below {_FARTHEST:,}, got {points.tolist()}"[:200]
        )
    points = points.astype(np.float32)
    if len(points) == 2:
        (left, top), (right, bottom) = points
        points = np.array(
            [[left, top], [right, top], [right, bottom], [left, bottom]], np.float32
        )
        if right <= left or bottom <= top:
            raise ValueError(
                "region: expected a box from top left to bottom right, got "
                f"{left:g}, {top:g} to {right:g}, {bottom:g}"
            )
    area = _signed_area(points)
    if area < 0 and len(points) == 4:
        points, area = points[[0, 3, 2, 1]], -area
    if area < 1:
        raise ValueError(
            "region: expected points clockwise around at least a pixel, got an area "
            f"of {area:.1f} from {points.tolist()}"[:200]
        )
    return points


def cut_out(
    page: UInt8[np.ndarray, "h w c"], region: Any
) -> UInt8[np.ndarray, "a b c"]:
    """Returns what is within a region, straightened, as an upright crop.

    Of an upright box that is the pixels as they are. A quadrilateral is seen from
    straight ahead (a perspective transform), as long as its longer sides; a bent
    region is unrolled, as long as the line along its middle. What lies beyond the page
    repeats its edge.

    Args:
      page: pixels in any order of channels.
      region: see `as_points`.

    Raises:
      ValueError: see `as_points`; or it lies outside of the page, or is far larger.
    """
    if page.dtype != np.uint8:
        raise ValueError(f"page: expected uint8 pixels, got {page.dtype}")
    points = as_points(region)
    height, width = page.shape[:2]
    low, high = points.min(axis=0), points.max(axis=0)
    if (low >= (width, height)).any() or (high <= 0).any():
        raise ValueError(
            f"region: from {low[0]:g}, {low[1]:g} to {high[0]:g}, {high[1]:g}, outside "
            f"of the page of {width} x {height} pixels"
        )
    if _is_upright_box(points):
        x0, y0 = np.clip(np.round(low), 0, (width - 1, height - 1)).astype(int)
        x1, y1 = np.clip(np.round(high), (x0 + 1, y0 + 1), (width, height)).astype(int)
        return page[y0:y1, x0:x1]
    top, bottom = np.split(points, 2)
    bottom = bottom[::-1]
    sides = np.linalg.norm(bottom - top, axis=1)
    if len(points) == 4:
        across, down = max(_length(top), _length(bottom)), float(sides.max())
    else:
        across, down = _length((top + bottom) / 2), float(sides.mean())
    if across * down > _LARGEST * width * height:
        raise ValueError(
            f"region: {across:.0f} x {down:.0f} pixels, far larger than the page of "
            f"{width} x {height}"
        )
    size = max(1, round(across)), max(1, round(down))
    try:
        if len(points) == 4:
            return _straightened(page, points, size)
        return _unrolled(page, top, bottom, size)
    except cv2.error as error:  # OpenCV 4 takes no more than 32,767 columns or rows
        raise ValueError(
            f"region: OpenCV cannot cut {size[0]} x {size[1]} pixels out of "
            f"{width} x {height}: {error}"
        ) from None


def parse_regions(text: str) -> list[tuple[Any, str]] | None:
    """Returns (region, transcription) of what detectors write for a page, as JSON.

    A list of objects with `points`, and `transcription` where known (PaddleOCR's
    labels), or of the points alone (its predictions). None: it is no such list.
    """
    if not text.startswith("["):
        return None
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entries, list):
        return None
    found = []
    for entry in entries:
        if isinstance(entry, dict) and "points" in entry:
            found.append((entry["points"], str(entry.get("transcription", ""))))
        elif isinstance(entry, list):
            found.append((entry, ""))
        else:
            return None
    return found


def _signed_area(points: np.ndarray) -> float:
    """Returns the area within, positive for clockwise points (y grows downwards)."""
    x, y = points.astype(np.float64).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _is_upright_box(points: np.ndarray) -> bool:
    if len(points) != 4:
        return False
    (x0, y0), (x2, y2) = points[0], points[2]
    box = [[x0, y0], [x2, y0], [x2, y2], [x0, y2]]
    return x0 < x2 and bool((points == box).all())


def _length(line: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def _straightened(
    page: np.ndarray, points: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Returns a quadrilateral of the page as a rectangle, `size` wide and high."""
    corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float32)
    straight = corners * np.array(size, np.float32)
    # Points are corners between pixels, OpenCV's are centres.
    matrix = cv2.getPerspectiveTransform(straight - 0.5, points - 0.5)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REPLICATE
    return cv2.warpPerspective(page, matrix, size, flags=flags, borderMode=border)


def _unrolled(
    page: np.ndarray, top: np.ndarray, bottom: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Returns what lies between two lines of the page, `size` wide and high."""
    steps = np.diff((top + bottom) / 2, axis=0)
    ends = np.concatenate([[0.0], np.linalg.norm(steps, axis=1).cumsum()])
    along = (np.arange(size[0]) + 0.5) / size[0] * ends[-1]
    down = ((np.arange(size[1]) + 0.5) / size[1])[:, None]
    maps = []
    for axis in (0, 1):
        above = np.interp(along, ends, top[:, axis])
        below = np.interp(along, ends, bottom[:, axis])
        plane = above * (1 - down) + below * down - 0.5
        maps.append(plane.astype(np.float32))
    border = cv2.BORDER_REPLICATE
    return cv2.remap(page, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=border)
