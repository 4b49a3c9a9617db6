"""Image files to text on standard output."""

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from robustscanner_jax.image_like import ImageError
from robustscanner_jax.reading import Reader
from robustscanner_jax.recognizer import Recognizer
from robustscanner_jax.report import draw_attention
from robustscanner_jax.rotation import Row

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def find_images(paths: Iterable[str]) -> Iterator[Path]:
    """Yields files as they are and the images of folders, sorted, subfolders included.

    What does not exist comes as well, and a folder without images: reading it gives the
    error.
    """
    for path in map(Path, paths):
        found = path.rglob("*") if path.is_dir() else ()
        images = sorted(p for p in found if p.suffix.lower() in IMAGE_SUFFIXES)
        yield from images or [path]


def run(
    recognizer: Reader,
    paths: Sequence[str],
    *,
    pictures: Path | None = None,
    rotate_tall: float | None = None,
) -> int:
    """Prints `path TAB text TAB confidence` for every image, in the order given.

    An image that cannot be read gets a line on stderr; the others are still read.

    Args:
      recognizer: what reads.
      paths: of images and folders.
      pictures: folder for a picture an image of where both branches looked; None draws
        nothing.
      rotate_tall: see `rotation.turned_rows`.

    Returns how many could not be read.

    Raises:
      TypeError: pictures of a reader that is no `Recognizer`.
      ValueError: `rotate_tall` is below 1.
    """
    if pictures is not None and not isinstance(recognizer, Recognizer):
        kind = type(recognizer).__name__
        raise TypeError(f"pictures: expected a Recognizer to draw them, got {kind}")
    failed, drawn = 0, set[str]()
    files = list(find_images(paths))
    readings = recognizer.read_each(files, rotate_tall=rotate_tall)
    for file, reading in zip(files, readings, strict=True):
        if isinstance(reading, ImageError):
            reason = "no image in this folder" if file.is_dir() else reading.reason
            print(f"{file}: {reason}", file=sys.stderr)
            failed += 1
            continue
        print(f"{file}\t{reading.text}\t{reading.confidence:.4f}", flush=True)
        if pictures is not None and isinstance(recognizer, Recognizer):
            picture = pictures / f"{_unused(file.stem, drawn)}.png"
            row = recognizer.row_of(file, rotate_tall=rotate_tall)
            draw_reading(recognizer, row, picture)
    return failed


def _unused(stem: str, drawn: set[str]) -> str:
    """Returns a name for a picture, and notes it.

    The stem may be taken, by an image of another folder or suffix.
    """
    others = (f"{stem}-{n}" for n in itertools.count(2))
    name = next(name for name in itertools.chain([stem], others) if name not in drawn)
    drawn.add(name)
    return name


def draw_reading(recognizer: Recognizer, row: Row, path: Path) -> None:
    """Writes a picture of how one row of `resize_and_pad` was read."""
    reading, explanation = recognizer.explain_row(row)
    bgr = recognizer.preprocessing.channel_order == "BGR"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = row[0][..., ::-1] if bgr else row[0]
    draw_attention(image, reading.characters, *map(np.asarray, explanation), path=path)
