"""What a converter reads: entries that are cheap to list, each read in a worker.

The parent process streams through the entries, cuts them into shards and hands them
out; only the workers touch images. So memory stays flat however long the list is, and
a shard always holds the same records.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from data_prep import checks
from data_prep.checks import Dropped
from robustscanner_jax.data.file_source import find_images
from robustscanner_jax.data.labels import Row, detect_label_format, read_labels
from robustscanner_jax.data.lmdb_source import LmdbSource, is_lmdb_file
from robustscanner_jax.data.records import INDEX_NAME, SHARD_SUFFIX, Record
from robustscanner_jax.data.shard_source import ShardSource, TfdsSource
from robustscanner_jax.data.sources import Source, open_source

# What `--from` calls the formats of label files that `labels.py` tells apart.
LABEL_FORMATS = {
    "tsv": "path TAB label",
    "paddleocr": "path TAB label",
    "icdar": "ICDAR gt.txt",
    "mjsynth-list": "MJSynth annotation",
    "mmocr-json": "MMOCR json",
    "mmocr-jsonl": "MMOCR jsonl",
    "mmocr-txt": "MMOCR txt",
    "csv": "CSV",
}
_OTHER_FORMATS = {
    "array_record": "ArrayRecord shards",
    "tfds": "a TFDS folder",
    "lmdb": "an LMDB",
    "folder": "a folder of label_anything.jpg",
}
FORMATS = ("auto", *LABEL_FORMATS, *_OTHER_FORMATS)
_LABEL_SUFFIXES = (".tsv", ".txt", ".json", ".jsonl", ".csv")
_LABEL_STEMS = ("labels", "label", "gt")
# An image may be missing: the folder is looked for with so many rows of the list.
_ROWS_TO_FIND_FOLDER = 100


class Input(Protocol):
    """A dataset to convert. Survives pickling into workers."""

    name: str  # short; the shards' names begin with it
    records_per_entry: float  # about; for the number of shards

    def entries(self) -> Iterator[Any]:
        """Yields small picklable things, the same ones in the same order each time."""
        ...

    def read(self, entry: Any) -> Iterable[Record | Dropped]:
        """Returns the records of one entry, images still encoded, in a fixed order."""
        ...


class SourceInput:
    """Any source of the package, read by index."""

    records_per_entry = 1.0

    def __init__(self, source: Source):
        self.name = source.name
        self._source = source

    def entries(self) -> Iterator[int]:
        """Yields the indices."""
        return iter(range(len(self._source)))

    def read(self, entry: int) -> list[Record | Dropped]:
        """Returns the record of an index."""
        try:
            return [Record(**self._source[entry])]
        except ValueError as error:
            record_id = f"{self.name}/{entry:09d}"
            return [Dropped(record_id, checks.reason_of(error), str(error))]


class LabelFileInput:
    """A label file, streamed: the list is never in memory.

    A line that is not UTF-8 is dropped and counted; any other line that does not fit
    the format stops the conversion, with file and line.
    """

    records_per_entry = 1.0

    def __init__(self, path: str, images: str | None, *, scratch: Path):
        """Finds the images; `scratch` takes a copy of a list with damaged lines."""
        folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
        stem = os.path.splitext(os.path.basename(path))[0]
        self.name = folder if stem.lower() in _LABEL_STEMS else stem
        self._listed = path
        self._damaged = _lines_not_utf8(path)
        if self._damaged:
            self._listed = os.fspath(scratch / "readable_lines.txt")
            _blank_lines(path, {number for number, _ in self._damaged}, self._listed)
        self._path = path
        self._root = _find_root(path, read_labels(self._listed), images)

    def entries(self) -> Iterator[tuple[str, ...]]:
        """Yields (path, text), then (where, what came, "") of each damaged line."""
        for row in read_labels(self._listed):
            yield row.path, row.text
        for number, line in self._damaged:
            yield f"{self._path}, line {number}", repr(line), ""

    def read(self, entry: tuple[str, ...]) -> list[Record | Dropped]:
        """Returns the record of one line."""
        if len(entry) == 3:
            return [Dropped(entry[0], checks.NOT_UTF8, entry[1])]
        path, text = entry
        return [read_image(self._root, path, text)]


def read_image(root: str | os.PathLike[str], path: str, text: str) -> Record | Dropped:
    """Returns an image file below `root` as a record whose id is its path."""
    try:
        image = Path(root, path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = checks.UNREADABLE_RECORD
        if isinstance(error, FileNotFoundError):
            reason = checks.MISSING
        return Dropped(path, reason, str(error))
    return Record(path, image, text)


def open_input(
    path: str | os.PathLike[str],
    *,
    format_name: str = "auto",
    images: str | os.PathLike[str] | None = None,
    scratch: Path,
) -> Input:
    """Opens what `sources.open_source` opens, for conversion.

    Args:
      path: see `open_source`; a label file is streamed.
      format_name: one of `FORMATS`; what is found must be of that format.
      images: the folder that the paths of a label file are relative to.
      scratch: an existing folder for temporary files.

    Raises what `open_source` raises, and `ValueError` for another format.
    """
    if format_name not in FORMATS:
        raise ValueError(f"--from: expected one of {FORMATS}, got {format_name!r}")
    path = os.path.expanduser(os.fspath(path))
    images = None if images is None else os.path.expanduser(os.fspath(images))
    label_file = _label_file(path)
    if label_file is not None:
        found = detect_label_format(label_file)
        opened: Input = LabelFileInput(label_file, images, scratch=scratch)
    else:
        source = open_source(path, images=images)
        found = _OTHER_FORMATS[_kind_of(source)]
        opened = SourceInput(source)
    expected = (LABEL_FORMATS | _OTHER_FORMATS).get(format_name, found)
    if expected != found:
        raise ValueError(
            f"{path}: expected {expected} (--from={format_name}), but this is {found}; "
            "leave --from=auto to take what is found"
        )
    return opened


def _kind_of(source: Source) -> str:
    kinds: tuple[tuple[type, str], ...]
    kinds = ((ShardSource, "array_record"), (TfdsSource, "tfds"), (LmdbSource, "lmdb"))
    return next((name for kind, name in kinds if isinstance(source, kind)), "folder")


def _label_file(path: str) -> str | None:
    """Returns the label file that `path` is, or the one named so in a folder."""
    if os.path.isfile(path):
        is_binary = path.endswith((SHARD_SUFFIX, ".mdb")) or is_lmdb_file(path)
        return None if is_binary else path
    if not os.path.isdir(path):
        return None
    names = os.listdir(path)
    if {INDEX_NAME, "features.json", "data.mdb"} & set(names):
        return None
    named = [
        name
        for name in names
        for stem, suffix in [os.path.splitext(name.lower())]
        if suffix in _LABEL_SUFFIXES and stem in _LABEL_STEMS
    ]
    return os.path.join(path, named[0]) if len(named) == 1 else None


def _find_root(path: str, rows: Iterator[Row], images: str | None) -> str:
    failure = ValueError(f"{path}: no labelled image in it")
    for tried, row in enumerate(rows):
        if tried == _ROWS_TO_FIND_FOLDER:
            break
        try:
            return find_images(os.path.dirname(path), row.path, images, where=row.where)
        except ValueError as error:
            failure = error if tried == 0 else failure
    raise failure


def _lines_not_utf8(path: str) -> list[tuple[int, bytes]]:
    """Returns number and beginning of each damaged line; refuses another encoding."""
    damaged, number = [], 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                damaged.append((number, line.rstrip()[:80]))
    if 2 * len(damaged) > number:
        raise ValueError(
            f"{path}: {len(damaged)} of {number} lines are not UTF-8, the first line "
            f"is {damaged[0][0]}: {damaged[0][1]!r}; convert the file to UTF-8"
        )
    return damaged


def _blank_lines(path: str, numbers: set[int], copy: str) -> None:
    """Copies a file with some lines left blank, which keeps the line numbers."""
    with open(path, "rb") as source, open(copy, "wb") as target:
        for number, line in enumerate(source, 1):
            target.write(b"\n" if number in numbers else line)
