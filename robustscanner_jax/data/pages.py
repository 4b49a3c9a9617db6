"""Words cut out of pages, as files of images like any other."""

import functools
import json
import os

import cv2
import numpy as np

from robustscanner_jax.data.images import decode_image
from robustscanner_jax.data.label_lines import Row
from robustscanner_jax.regions import cut_out


def record_id(row: Row) -> str:
    """Returns the image's path, and of a region `#` and its number on the page."""
    return f"{row.path}#{row.number}" if row.points else row.path


def image_bytes(root: str | os.PathLike[str], row: Row) -> bytes:
    """Returns the image file of a row, as it is, or a PNG of its region of the page.

    Words of a page that follow each other cost one decoding of it.

    Args:
      root: the folder that the row's path is relative to.
      row: of a label file.

    Raises:
      ValueError: the page is no image, the region is none or outside of it, or the
        path holds a NUL.
      OSError: the file cannot be read.
    """
    path = os.path.join(root, row.path)
    if not row.points:
        with open(path, "rb") as file:
            return file.read()
    page = _decoded(path, os.stat(path).st_mtime_ns)
    _, data = cv2.imencode(".png", cut_out(page, json.loads(row.points)))
    return data.tobytes()


@functools.lru_cache(maxsize=2)
def _decoded(path: str, changed: int) -> np.ndarray:
    del changed  # tells a file from the one that it replaced
    with open(path, "rb") as file:
        return decode_image(file.read())
