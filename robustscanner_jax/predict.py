"""Image files to text on standard output."""

import itertools
import json
import operator
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robustscanner_jax.data.file_source import NAMES_TO_FIND_FOLDER, folders_near
from robustscanner_jax.data.label_lines import BOM
from robustscanner_jax.data.labels import is_list_of_pages
from robustscanner_jax.image_like import ImageError, ImageLike, Region, to_bgr
from robustscanner_jax.reading import Reader, Reading
from robustscanner_jax.recognizer import Recognizer
from robustscanner_jax.regions import parse_regions
from robustscanner_jax.report import draw_attention
from robustscanner_jax.views import AS_IT_IS, Views

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
LIST_SUFFIXES = {".tsv", ".txt"}


class Target(NamedTuple):
    """What to read: an image file, or one region of it."""

    path: Path
    number: int | None = None  # of the region on its page, from 0; None: all of it
    points: Any = None  # of the region, see `regions`

    @property
    def name(self) -> str:
        """The path, and of a region `#` and its number."""
        return str(self.path) if self.number is None else f"{self.path}#{self.number}"


def find_targets(paths: Iterable[str]) -> Iterator[Target]:
    """Yields files as they are and the images of folders, sorted, subfolders included.

    A file that ends in .txt or .tsv is a list of such paths, see `listed`. What does
    not exist comes as well, and a folder without images: reading it gives the error.

    Raises:
      ValueError: a list cannot be read, or names nothing.
    """
    for given in map(Path, paths):
        is_list = given.suffix.lower() in LIST_SUFFIXES and not given.is_dir()
        for target in listed(given) if is_list else [Target(given)]:
            # Not `Path.is_dir`: it raises for a name that is too long.
            found = target.path.rglob("*") if os.path.isdir(target.path) else ()
            images = sorted(p for p in found if p.suffix.lower() in IMAGE_SUFFIXES)
            yield from map(Target, images) if images else [target]


def listed(path: Path) -> list[Target]:
    """Returns the images in a list of `path` or `path TAB label`, a line each.

    Paths are relative to that of the `file_source.folders_near` the list which holds
    the first of them to be found, and may be no UTF-8; labels are ignored. In a list of
    pages, `path TAB JSON` as text detectors write it (see `regions.parse_regions`), a
    line gives the regions of its page, and none where it lists none.

    Raises:
      ValueError: the list cannot be read, or names nothing; or a line of a list of
        pages is none.
    """
    try:
        content = path.read_bytes().removeprefix(BOM)
        of_pages = is_list_of_pages(str(path))
    except OSError as error:
        raise ValueError(f"list of images {path}: {error.strerror}") from None
    if b"\0" in content:  # of no path
        raise ValueError(f"list of images {path}: expected lines of text, got bytes")
    lines = content.split(b"\n")
    fields = [line.removesuffix(b"\r").partition(b"\t") for line in lines]
    names = [os.fsdecode(name) for name, _, _ in fields]
    first = list(itertools.islice(filter(None, names), NAMES_TO_FIND_FOLDER))
    if not first:
        raise ValueError(f"list of images {path}: expected a path a line, got none")
    near = ((f, name) for name in first for f in folders_near(str(path.parent)))
    holding = (f for f, name in near if os.path.exists(os.path.join(f, name)))
    folder = Path(next(holding, path.parent))
    targets = []
    for number, (name, (_, tab, label)) in enumerate(
        zip(names, fields, strict=True), 1
    ):
        if not name:
            continue
        if not (of_pages and tab):
            targets.append(Target(folder / name))
            continue
        regions = parse_regions(label.decode("utf-8", "replace"))
        if regions is None:
            raise ValueError(
                f"list of pages {path}, line {number}: expected a JSON list of regions "
                f"behind the TAB, got {label[:60]!r}"
            )
        targets += [Target(folder / name, i, r) for i, (r, _) in enumerate(regions)]
    return targets


def open_images(targets: Iterable[Target]) -> Iterator[ImageLike]:
    """Yields what to read for each target; regions in a row share their page's pixels.

    A page that cannot be read comes as its path: reading it gives the error.
    """
    for path, of_page in itertools.groupby(targets, operator.attrgetter("path")):
        page: Any = None
        for target in of_page:
            if target.number is None:
                yield path
                continue
            if page is None:
                try:
                    page = np.ascontiguousarray(to_bgr(path)[..., ::-1])
                except (ValueError, OSError):
                    page = path
            yield Region(page, target.points)


def run(
    recognizer: Reader,
    paths: Sequence[str],
    *,
    pictures: Path | None = None,
    views: Views = AS_IT_IS,
    jsonl: bool = False,
) -> int:
    """Prints `path TAB text TAB confidence` for every image, in the order given.

    A region of a page has `#` and its number behind the path. An image that cannot be
    read gets a line on stderr; the others are still read.

    Args:
      recognizer: what reads.
      paths: of images, folders and lists of them, see `find_targets`.
      pictures: folder for a picture an image of where both branches looked; None draws
        nothing.
      views: of an image that may be read.
      jsonl: whether to print a JSON object a line instead, see `reading_json`; where an
        image cannot be read, one of `path` and `error`. That of a region has `region`,
        its number, and `points` as well.

    Returns how many could not be read.

    Raises:
      TypeError: pictures of a reader that is no `Recognizer`.
      ValueError: a list cannot be read.
    """
    targets = list(find_targets(paths))
    if pictures is None:
        readings = recognizer.read_each(
            open_images(targets),
            rotate_tall=views.rotate_tall,
            look_closer=views.look_closer,
        )
    elif isinstance(recognizer, Recognizer):
        readings = _read_and_draw(recognizer, targets, pictures, views)
    else:
        kind = type(recognizer).__name__
        raise TypeError(f"pictures: expected a Recognizer to draw them, got {kind}")
    failed = 0
    for target, reading in zip(targets, readings, strict=True):
        if isinstance(reading, ImageError):
            is_folder = os.path.isdir(target.path)
            reason = "no image in this folder" if is_folder else reading.reason
            print(f"{target.name}: {reason}", file=sys.stderr)
            if jsonl:
                print(_json_line(_place(target) | {"error": reason}), flush=True)
            failed += 1
            continue
        line = f"{target.name}\t{reading.text}\t{reading.confidence:.4f}"
        print(reading_json(target, reading) if jsonl else line, flush=True)
    return failed


def _place(target: Target) -> dict[str, Any]:
    place: dict[str, Any] = {"path": str(target.path)}
    if target.number is not None:
        place |= {"region": target.number, "points": _numbers(target.points)}
    return place


def _numbers(points: Any) -> Any:
    """Returns the points of a region as they were listed; null where JSON has none."""
    try:
        json.dumps(points, allow_nan=False)
    except (ValueError, RecursionError):  # NaN, which Python's JSON reads
        return None
    return points


def reading_json(target: Target, reading: Reading) -> str:
    """Returns what was read where, as a line of JSON."""
    return _json_line(_place(target) | reading.as_fields())


def _json_line(values: dict[str, Any]) -> str:
    r"""Returns JSON; a byte of a path that is no UTF-8 is escaped, as `\udce9`.

    As it is the line would be no JSON. `os.fsencode` of what a JSON reader in Python
    makes of the escape is the path again.
    """
    line = json.dumps(values, ensure_ascii=False)
    return line.encode("utf-8", "backslashreplace").decode("utf-8")


def _read_and_draw(
    recognizer: Recognizer,
    targets: Sequence[Target],
    pictures: Path,
    views: Views,
) -> Iterator[Reading | ImageError]:
    """Yields what `read_each` would, once the picture of each reading is written."""
    pictures.mkdir(parents=True, exist_ok=True)
    drawn = set[str]()
    for target, image in zip(targets, open_images(targets), strict=True):
        try:
            view = recognizer.view_of(image, views)
        except ImageError as error:
            yield error
            continue
        reading, explanation = recognizer.explain_view(view)
        number = "" if target.number is None else f"-{target.number}"
        path = pictures / f"{_unused(target.path.stem + number, drawn)}.png"
        pixels, width = view.row
        bgr = recognizer.preprocessing.channel_order == "BGR"
        rgb = pixels[..., ::-1] if bgr else pixels
        maps = map(np.asarray, explanation)
        draw_attention(rgb, width, reading, *maps, path=path, note=view.description)
        yield reading


def _unused(stem: str, drawn: set[str]) -> str:
    """Returns a name for a picture, and notes it.

    The stem may be taken, by an image of another folder or suffix.
    """
    others = (f"{stem}-{n}" for n in itertools.count(2))
    name = next(name for name in itertools.chain([stem], others) if name not in drawn)
    drawn.add(name)
    return name
