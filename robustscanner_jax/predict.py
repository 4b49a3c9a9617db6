"""Image files to text on standard output."""

import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robustscanner_jax.data.label_lines import BOM
from robustscanner_jax.image_like import ImageError
from robustscanner_jax.reading import Reader, Reading
from robustscanner_jax.recognizer import Recognizer
from robustscanner_jax.report import draw_attention
from robustscanner_jax.rotation import Row

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
LIST_SUFFIXES = {".tsv", ".txt"}


def find_images(paths: Iterable[str]) -> Iterator[Path]:
    """Yields files as they are and the images of folders, sorted, subfolders included.

    A file that ends in .txt or .tsv is a list of such paths, see `listed_paths`. What
    does not exist comes as well, and a folder without images: reading it gives the
    error.

    Raises:
      ValueError: a list cannot be read, or names nothing.
    """
    for given in map(Path, paths):
        is_list = given.suffix.lower() in LIST_SUFFIXES and not given.is_dir()
        for path in listed_paths(given) if is_list else [given]:
            # Not `Path.is_dir`: it raises for a name that is too long.
            found = path.rglob("*") if os.path.isdir(path) else ()
            images = sorted(p for p in found if p.suffix.lower() in IMAGE_SUFFIXES)
            yield from images or [path]


def listed_paths(path: Path) -> list[Path]:
    """Returns the paths in a list of `path` or `path TAB label`, a line each.

    They are relative to the list's folder, and may be no UTF-8; labels are ignored.

    Raises:
      ValueError: the list cannot be read, or names nothing.
    """
    try:
        lines = path.read_bytes().removeprefix(BOM).split(b"\n")
    except OSError as error:
        raise ValueError(f"list of images {path}: {error.strerror}") from None
    names = [line.removesuffix(b"\r").partition(b"\t")[0] for line in lines]
    if not any(names):
        raise ValueError(f"list of images {path}: expected a path a line, got none")
    return [path.parent / os.fsdecode(name) for name in names if name]


def run(
    recognizer: Reader,
    paths: Sequence[str],
    *,
    pictures: Path | None = None,
    rotate_tall: float | None = None,
    jsonl: bool = False,
) -> int:
    """Prints `path TAB text TAB confidence` for every image, in the order given.

    An image that cannot be read gets a line on stderr; the others are still read.

    Args:
      recognizer: what reads.
      paths: of images, folders and lists of them, see `find_images`.
      pictures: folder for a picture an image of where both branches looked; None draws
        nothing.
      rotate_tall: see `rotation.turned_rows`.
      jsonl: whether to print a JSON object a line instead, see `reading_json`; where an
        image cannot be read, one of `path` and `error`.

    Returns how many could not be read.

    Raises:
      TypeError: pictures of a reader that is no `Recognizer`.
      ValueError: `rotate_tall` is below 1, or a list cannot be read.
    """
    if pictures is not None and not isinstance(recognizer, Recognizer):
        kind = type(recognizer).__name__
        raise TypeError(f"pictures: expected a Recognizer to draw them, got {kind}")
    failed, drawn = 0, set[str]()
    files = list(find_images(paths))
    readings = recognizer.read_each(files, rotate_tall=rotate_tall)
    for file, reading in zip(files, readings, strict=True):
        if isinstance(reading, ImageError):
            is_folder = os.path.isdir(file)
            reason = "no image in this folder" if is_folder else reading.reason
            print(f"{file}: {reason}", file=sys.stderr)
            if jsonl:
                print(_json_line({"path": str(file), "error": reason}), flush=True)
            failed += 1
            continue
        line = f"{file}\t{reading.text}\t{reading.confidence:.4f}"
        print(reading_json(file, reading) if jsonl else line, flush=True)
        if pictures is not None and isinstance(recognizer, Recognizer):
            picture = pictures / f"{_unused(file.stem, drawn)}.png"
            row = recognizer.row_of(file, rotate_tall=rotate_tall)
            draw_reading(recognizer, row, picture)
    return failed


def reading_json(file: Path, reading: Reading) -> str:
    """Returns path, text and confidences, rounded to six digits, as a line of JSON."""
    sure_of = [round(confidence, 6) for confidence in reading.character_confidences]
    return _json_line(
        {
            "path": str(file),
            "text": reading.text,
            "confidence": round(reading.confidence, 6),
            "characters": list(reading.characters),
            "character_confidences": sure_of,
        }
    )


def _json_line(values: dict[str, Any]) -> str:
    r"""Returns JSON; a byte of a path that is no UTF-8 is escaped, as `\udce9`.

    As it is the line would be no JSON. `os.fsencode` of what a JSON reader in Python
    makes of the escape is the path again.
    """
    line = json.dumps(values, ensure_ascii=False)
    return line.encode("utf-8", "backslashreplace").decode("utf-8")


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
    pixels, width = row
    image = pixels[..., ::-1] if bgr else pixels
    draw_attention(image, width, reading, *map(np.asarray, explanation), path=path)
