"""Sources whose images are single files: label files, and labels in file names."""

from __future__ import annotations

import array
import itertools
import logging
import operator
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, SupportsIndex

from robustscanner_jax.data import pages
from robustscanner_jax.data.label_lines import (
    ILLEGIBLE,
    IMAGE_SUFFIXES,
    BadLine,
    LineError,
    Row,
)
from robustscanner_jax.data.labels import read_labels

logger = logging.getLogger(__name__)

# `182_slinking_71711`: MJSynth. Anything else: `slinking_whatever`.
_MJSYNTH_STEM = re.compile(r"\d+_([^_]+)_\d+")
# An image may be missing: the folder is looked for with so many rows of a list.
NAMES_TO_FIND_FOLDER = 100


class PackedStrings:
    """A list of strings in one block of bytes.

    Millions of Python strings cost 60 bytes each on top of their text, and worker
    processes copy them as soon as a reference count changes. This holds the text and 8
    bytes a string, and pickles at the speed of memory.
    """

    def __init__(self):
        self._block = bytearray()
        self._ends = array.array("q", [0])

    def append(self, string: str) -> None:
        """Adds one string at the end."""
        # File names and JSON may hold lone surrogates.
        self._block += string.encode("utf-8", "surrogatepass")
        self._ends.append(len(self._block))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        start, end = self._ends[index], self._ends[index + 1]
        return self._block[start:end].decode("utf-8", "surrogatepass")


class FileSource:
    """Images in single files below one folder, with their labels in memory.

    A record's id is the path as the label file writes it, and of a word of a page `#`
    and its number. A line of the label file that could not be read keeps its place
    among the records; words marked as illegible are left out.
    """

    def __init__(self, name: str, root: str, rows: Iterable[Row | BadLine]):
        self.name = name
        self._root = root
        self._paths, self._texts = PackedStrings(), PackedStrings()
        self._regions = PackedStrings()  # number, space, points; shorter where none
        self._bad: dict[int, BadLine] = {}
        illegible = 0
        for row in rows:
            if isinstance(row, BadLine):
                if row.reason == ILLEGIBLE:
                    illegible += 1
                    continue
                self._bad[len(self)] = row
                row = Row(row.where, "", "")
            if row.points:
                while len(self._regions) < len(self):
                    self._regions.append("")
                self._regions.append(f"{row.number} {row.points}")
            self._paths.append(row.path)
            self._texts.append(row.text)
        if illegible:
            logger.info("%s: %d words %s left out", name, illegible, ILLEGIBLE)

    def __len__(self) -> int:
        """Returns the number of records."""
        return len(self._paths)

    def __repr__(self) -> str:
        """Returns a short description."""
        return f"FileSource({self.name!r}, {self._root!r}, {len(self)} records)"

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """Returns `id`, `image` (a file's bytes, not decoded) and `text`.

        Raises `ValueError` naming the file where an image cannot be read, and its kind
        `LineError` naming the line of the label file that gives no record.
        """
        i = operator.index(index)
        if not 0 <= i < len(self):
            raise IndexError(f"{self.name}: no record {i}, there are {len(self)}")
        if i in self._bad:
            where, reason, detail = self._bad[i]
            raise LineError(reason, f"{where}: {detail}")
        region = self._regions[i] if i < len(self._regions) else ""
        number, _, points = region.partition(" ")
        row = Row("", self._paths[i], self._texts[i], points, int(number or 0))
        name = pages.record_id(row)
        try:
            image = pages.image_bytes(self._root, row)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the path
            raise ValueError(f"record {name}: image cannot be read ({error})") from None
        return {"id": name, "image": image, "text": row.text}


def open_label_file(path: str, name: str, images: str | None = None) -> FileSource:
    """Opens a label file of any known format.

    Args:
      path: of the label file.
      name: of the source.
      images: the folder that the image paths are relative to. By default the label
        file's own folder, the folder above, or a folder inside, whichever holds the
        first image.
    """
    root = find_root(path, images)
    return FileSource(name, root, read_labels(path))


def find_root(path: str, images: str | None) -> str:
    """Returns the folder that the image paths of a label file are relative to.

    Raises `ValueError` where none of the first 100 images is in any likely folder.
    """
    rows = (row for row in read_labels(path) if not isinstance(row, BadLine))
    named = ((row.where, row.path) for row in rows)
    return find_images(path, named, images)


def find_images(path: str, named: Iterable[tuple[str, str]], images: str | None) -> str:
    """Returns the folder that paths are relative to: which holds the first to be found.

    Args:
      path: of the file which names them.
      named: where each image is named, and its path; taken until one is found.
      images: the only folder to look in; None: see `folders_near`.

    Raises:
      ValueError: none of the first 100 images is in any of these folders, or there is
        none; names the first.
    """
    folder = os.path.dirname(path) or os.curdir
    tried: dict[str, str] = {}
    for where, image in named:
        if image in tried:  # another word of the same page
            continue
        if len(tried) == NAMES_TO_FIND_FOLDER:
            break
        tried[image] = where
        for candidate in [images] if images is not None else folders_near(folder):
            if os.path.isfile(os.path.join(candidate, image)):
                return candidate
    near = f"{folder}, above it and one level below"
    looked = images if images is not None else near
    for image, where in tried.items():
        raise ValueError(f"{where}: image {image!r} not found in {looked}")
    raise ValueError(f"{path}: no labelled image in it")


def folders_near(folder: str) -> Iterator[str]:
    """Yields what a list's paths may be relative to: its folder, one above, any in it.

    The folder is listed, which may be long, only where the first two do not do.
    """
    folder = folder or os.curdir
    yield folder
    yield os.path.join(folder, os.pardir)
    with os.scandir(folder) as entries:
        inside = sorted(entry.path for entry in entries if entry.is_dir())
    yield from inside


def open_image_folder(folder: str, name: str) -> FileSource:
    """Opens a folder, searched through, of images with the label in the file name.

    The label is what stands before the first underscore (`slinking_07.jpg`), or the
    second field where every name has MJSynth's form (`182_slinking_71711.jpg`).

    Raises `ValueError` where the names hold no label: no underscore, only numbers, or
    the same word everywhere (`word_1.png`, `word_2.png`).
    """
    files = sorted(image_files(folder))
    stems = [os.path.splitext(os.path.basename(path))[0] for path in files]
    advice = "list the labels in a labels.tsv with lines of path TAB label"
    for path, stem in zip(files, stems, strict=True):
        if not stem.partition("_")[1]:
            raise ValueError(
                f"{folder}: expected file names of the form label_anything or "
                f"number_label_number, got {path!r}; {advice}"
            )
    matches = [_MJSYNTH_STEM.fullmatch(stem) for stem in stems]
    if all(match and not match[1].isdigit() for match in matches):
        texts = [match[1] for match in matches if match]
    else:
        texts = [stem.partition("_")[0] for stem in stems]
    numbers_only = all(stem.replace("_", "").isdigit() for stem in stems)
    same_word = len(files) > 1 and len(set(texts)) == 1
    if numbers_only or same_word:
        raise ValueError(
            f"{folder}: file names such as {files[0]!r} hold no label; {advice}"
        )
    rows = zip(files, files, texts, strict=True)
    return FileSource(name, folder, itertools.starmap(Row, rows))


def has_images(folder: str) -> bool:
    """Returns whether there is an image file in `folder` or below it."""
    return next(image_files(folder), None) is not None


def image_files(folder: str) -> Iterator[str]:
    """Yields the paths of image files, relative to `folder`, in no order."""
    seen = set[str]()  # a link may lead back
    for parent, inside, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            inside.clear()
            continue
        seen.add(real)
        for name in names:
            if name.lower().endswith(IMAGE_SUFFIXES):
                yield os.path.relpath(os.path.join(parent, name), folder)
