"""Image files to text on standard output."""

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from robustscanner_jax.reading import Reader, to_bgr
from robustscanner_jax.recognizer import Recognizer
from robustscanner_jax.report import draw_attention
from robustscanner_jax.rotation import Row, check_ratio, crop_rows

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
      pictures: folder for a picture an image of where both branches looked; needs a
        `Recognizer`. None draws nothing.
      rotate_tall: see `rotation.turned_rows`.

    Returns how many could not be read.
    """
    check_ratio(rotate_tall)
    failed, drawn = 0, set[str]()
    crops: list[tuple[Path, list[Row]]] = []

    def flush() -> None:
        found = recognizer.read_crops([rows for _, rows in crops])
        for (path, rows), (reading, won) in zip(crops, found, strict=True):
            print(f"{path}\t{reading.text}\t{reading.confidence:.4f}", flush=True)
            if pictures is not None and isinstance(recognizer, Recognizer):
                # The name may be taken, by an image of another folder or suffix.
                others = (f"{path.stem}-{n}" for n in itertools.count(2))
                names = itertools.chain([path.stem], others)
                name = next(name for name in names if name not in drawn)
                drawn.add(name)
                draw_reading(recognizer, rows[won], pictures / f"{name}.png")
        crops.clear()

    for path in find_images(paths):
        try:
            rows = crop_rows(to_bgr(path), recognizer.preprocessing, rotate_tall)
        except (ValueError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            if path.is_dir():
                reason = "no image in this folder"
            print(f"{path}: {reason}", file=sys.stderr)
            failed += 1
            continue
        crops.append((path, rows))
        if len(crops) == recognizer.batch_size:
            flush()
    flush()
    return failed


def draw_reading(recognizer: Recognizer, row: Row, path: Path) -> None:
    """Writes a picture of how one row of `resize_and_pad` was read."""
    reading, explanation = recognizer.explain(row)
    bgr = recognizer.preprocessing.channel_order == "BGR"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = row[0][..., ::-1] if bgr else row[0]
    draw_attention(image, reading.characters, *map(np.asarray, explanation), path=path)
