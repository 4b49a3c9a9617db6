"""Image files to text on standard output."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from robustscanner_jax.preprocessing import resize_and_pad
from robustscanner_jax.recognizer import Recognizer, to_bgr

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def find_images(paths: Iterable[str]) -> Iterator[Path]:
    """Yields files as they are and the images of folders, sorted, subfolders included.

    What does not exist comes as well: reading it gives the error.
    """
    for path in map(Path, paths):
        if path.is_dir():
            yield from sorted(
                p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES
            )
        else:
            yield path


def run(recognizer: Recognizer, paths: Sequence[str]) -> int:
    """Prints `path TAB text TAB confidence` for every image, in the order given.

    An image that cannot be read gets a line on stderr; the others are still read.

    Returns how many could not be read.
    """
    failed = 0
    rows: list[tuple[Path, tuple]] = []

    def flush() -> None:
        if rows:
            readings = recognizer.read_rows([row for _, row in rows])
            for (path, _), reading in zip(rows, readings, strict=True):
                print(f"{path}\t{reading.text}\t{reading.confidence:.4f}", flush=True)
            rows.clear()

    for path in find_images(paths):
        try:
            image = to_bgr(path)
            rows.append((path, resize_and_pad(image, recognizer.weights.preprocessing)))
        except (ValueError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            print(f"{path}: {reason}", file=sys.stderr)
            failed += 1
        if len(rows) == recognizer.batch_size:
            flush()
    flush()
    return failed
