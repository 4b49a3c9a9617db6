"""Words of a page, cut out where a text detector found them.

A region is the outline of one word as it reads, in pixels of the page as it is seen,
after EXIF rotation:

- two points: corners of an upright box, top left and bottom right;
- four: the corners clockwise from the text's top left, as ICDAR, PaddleOCR and MMOCR
  write them; anticlockwise from there is understood as well;
- any other even number: along the top of a bent word from its beginning to its end,
  then back along its bottom, as Total-Text and CTW1500 write them.

No JAX in here: exported networks read regions too.
"""

import json
import reprlib
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

Points = Float32[np.ndarray, "n 2"]

_SHAPES = "two corners of a box, four corners, or along the top and back at the bottom"
_FARTHEST = 1_000_000  # a float32 counts halves of pixels up to here
# A crop is at most so many times as large as its page, however a region is bent.
_LARGEST = 2
_LONGEST = 32_766  # columns or rows that OpenCV remaps to
_BAND = 1 << 18  # pixels whose places on the page are computed at once


class RegionError(ValueError):
    """A region that is none, or lies outside of its page."""


def as_points(region: Any) -> Points:
    """Returns the points of a region, given as pairs or as x1, y1, x2, y2, ...

    Raises:
      RegionError: of no form that the module names, or it encloses nothing.
    """
    try:
        points: Any = np.asarray(region)
    except (TypeError, ValueError, OverflowError):
        points = np.zeros(0)
    if points.ndim == 1 and points.size % 2 == 0:
        points = points.reshape(-1, 2)
    fits = points.ndim == 2 and points.shape[1] == 2 and len(points) % 2 == 0
    # Neither text nor truth values, which convert to numbers, nor objects.
    if not fits or len(points) < 2 or points.dtype.kind not in "iuf":
        shown = reprlib.repr(region)
        raise RegionError(f"region: expected {_SHAPES}, got {shown}")
    if not (np.abs(points.astype(np.float64)) < _FARTHEST).all():  # neither is NaN
        raise RegionError(
            f"region: expected pixels below {_FARTHEST:,}, got {points.tolist()}"[:200]
        )
    points = points.astype(np.float32)
    if len(points) == 2:
        return _corners_of_box(*points.ravel().tolist())
    area = _signed_area(points)
    if area < 0 and len(points) == 4:
        points, area = points[[0, 3, 2, 1]], -area
    if len(points) == 4 and not _is_convex(points):
        raise RegionError(
            "region: expected four corners in order around a convex quadrilateral, got "
            f"{points.tolist()}"
        )
    if area < 1:
        raise RegionError(
            "region: expected points clockwise around at least a pixel, got an area "
            f"of {area:.1f} from {points.tolist()}"[:200]
        )
    return points


def cut_out(
    page: UInt8[np.ndarray, "h w *c"], region: Any
) -> UInt8[np.ndarray, "a b *c"]:
    """Returns what is within a region, straightened, as an upright crop.

    Of an upright box that is the pixels as they are, as far as the page goes. A
    quadrilateral is seen from straight ahead (a perspective transform), as long as its
    longer sides; a bent region is unrolled, as long as the line along its middle. What
    lies beyond the page repeats its edge.

    Args:
      page: pixels in any order of channels.
      region: see `as_points`.

    Raises:
      RegionError: see `as_points`; or it lies outside of the page, or is far larger.
      ValueError: the page's pixels are no bytes.
    """
    if page.dtype != np.uint8:
        raise ValueError(f"page: expected uint8 pixels, got {page.dtype}")
    points = as_points(region)
    height, width = page.shape[:2]
    low, high = points.min(axis=0), points.max(axis=0)
    if (low >= (width, height)).any() or (high <= 0).any():
        raise RegionError(
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
    far_larger = across * down > _LARGEST * width * height
    if far_larger or max(across, down) > _LONGEST:
        raise RegionError(
            f"region: {across:.0f} x {down:.0f} pixels, far larger than the page of "
            f"{width} x {height}, or over {_LONGEST:,} at a side"
        )
    size = max(1, round(across)), max(1, round(down))
    straight = _straightened if len(points) == 4 else _unrolled
    try:
        crop = straight(page, top, bottom, size)
    except cv2.error as error:  # OpenCV 4 takes no page of more columns or rows either
        reason = getattr(error, "err", None) or "it says no more"
        raise RegionError(
            f"region: OpenCV cannot cut it out of {width} x {height} pixels: {reason}"
        ) from None
    return crop.reshape(*crop.shape[:2], *page.shape[2:])  # OpenCV drops one channel


def parse_regions(text: str) -> list[tuple[Any, Any]] | None:
    """Returns (region, transcription) of what detectors write for a page, as JSON.

    A list of objects with `points` and `transcription` (PaddleOCR's labels), which may
    be missing or null, or of the points alone (its predictions): None stands for what
    is not there. Neither is checked. None: it is no such list.
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
            found.append((entry["points"], entry.get("transcription")))
        elif isinstance(entry, list):
            found.append((entry, None))
        else:
            return None
    return found


def _corners_of_box(left: float, top: float, right: float, bottom: float) -> Points:
    if right <= left or bottom <= top:
        raise RegionError(
            "region: expected a box from top left to bottom right, got "
            f"{left:g}, {top:g} to {right:g}, {bottom:g}"
        )
    corners = [[left, top], [right, top], [right, bottom], [left, bottom]]
    return np.array(corners, np.float32)


def _signed_area(points: np.ndarray) -> float:
    """Returns the area within, positive for clockwise points (y grows downwards)."""
    x, y = points.astype(np.float64).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def _is_convex(points: np.ndarray) -> bool:
    """Returns whether clockwise points turn right at each of them."""
    x, y = (np.roll(points, -1, axis=0) - points).astype(np.float64).T
    return bool((x * np.roll(y, -1) - y * np.roll(x, -1) > 0).all())


def _is_upright_box(points: np.ndarray) -> bool:
    if len(points) != 4:
        return False
    (x0, y0), (x2, y2) = points[0], points[2]
    box = [[x0, y0], [x2, y0], [x2, y2], [x0, y2]]
    return x0 < x2 and bool((points == box).all())


def _length(line: np.ndarray) -> float:
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


def _straightened(
    page: np.ndarray, top: np.ndarray, bottom: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Returns a quadrilateral of the page as a rectangle, `size` wide and high."""
    corners = np.array([(0, 0), (1, 0), (0, 1), (1, 1)], np.float32)
    straight = corners * np.array(size, np.float32)
    seen = np.concatenate([top, bottom])
    # Points are corners between pixels, OpenCV's are centres.
    matrix = cv2.getPerspectiveTransform(straight - 0.5, seen - 0.5)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    border = cv2.BORDER_REPLICATE
    return cv2.warpPerspective(page, matrix, size, flags=flags, borderMode=border)


def _unrolled(
    page: np.ndarray, top: np.ndarray, bottom: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Returns what lies between two lines of the page, `size` wide and high."""
    width, height = size
    steps = np.diff((top + bottom) / 2, axis=0)
    ends = np.concatenate([[0.0], np.linalg.norm(steps, axis=1).cumsum()])
    along = (np.arange(width) + 0.5) / width * ends[-1]
    above, below = (
        [np.interp(along, ends, line[:, axis]).astype(np.float32) for axis in (0, 1)]
        for line in (top, bottom)
    )
    down = ((np.arange(height, dtype=np.float32) + 0.5) / height)[:, None]
    crop = np.empty((height, width, *page.shape[2:]), np.uint8)
    rows = max(1, _BAND // width)
    for start in range(0, height, rows):
        share = down[start : start + rows]
        map_x, map_y = (
            a + (b - a) * share - np.float32(0.5)
            for a, b in zip(above, below, strict=True)
        )
        band = cv2.remap(
            page, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        crop[start : start + rows] = band.reshape(*band.shape[:2], *page.shape[2:])
    return crop
