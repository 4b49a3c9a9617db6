"""What a converter reads: entries that are cheap to list, each read in a worker.

The parent process streams through the entries, cuts them into shards and hands them
out; only the workers touch images. So memory stays flat however long the list is, and
a shard always holds the same records.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from data_prep import checks, input_digest
from data_prep.checks import Dropped
from robustscanner_jax.data import pages
from robustscanner_jax.data.file_source import find_root, image_files
from robustscanner_jax.data.images import ImageFileError
from robustscanner_jax.data.label_lines import Row
from robustscanner_jax.data.labels import detect_label_format, read_labels
from robustscanner_jax.data.lmdb_source import LmdbSource, is_lmdb_file
from robustscanner_jax.data.records import INDEX_NAME, SHARD_SUFFIX, Record
from robustscanner_jax.data.shard_source import ShardSource, TfdsSource
from robustscanner_jax.data.sources import (
    LABEL_STEMS,
    Source,
    label_files,
    open_source,
)
from robustscanner_jax.regions import RegionError

# What `--from` calls the formats of label files that `labels.py` tells apart.
LABEL_FORMATS = {
    "tsv": "path TAB label",
    "paddleocr": "path TAB label",
    "paddleocr-pages": "PaddleOCR pages",
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
# A row of a label file, or why it is none.
Labelled = Row | Dropped


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

    def digest(self) -> str:
        """Returns what differs once labels were changed; see `input_digest`."""
        ...


class SourceInput:
    """Any source of the package, read by index."""

    records_per_entry = 1.0

    def __init__(self, source: Source, path: str):
        self.name = source.name
        self._source = source
        self._path = path

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

    def digest(self) -> str:
        """Returns a digest of a folder's image names, else of the files' states."""
        if _kind_of(self._source) == "folder":
            return input_digest.of_names(sorted(image_files(self._path)))
        return input_digest.of_states(_data_files(self._path))


class LabelFileInput:
    """A label file, streamed: the list is never in memory.

    A line that does not fit the format is dropped and counted, under its own reason.
    """

    records_per_entry = 1.0

    def __init__(self, path: str, images: str | None):
        """Finds the images."""
        folder = os.path.basename(os.path.dirname(os.path.abspath(path)))
        stem = os.path.splitext(os.path.basename(path))[0]
        self.name = folder if stem.lower() in LABEL_STEMS else stem
        self._path = path
        self._root = find_root(path, images)

    def digest(self) -> str:
        """Returns a digest of the list, not of the images."""
        return input_digest.of_file(self._path)

    def entries(self) -> Iterator[Labelled]:
        """Yields each row, and each line that is none."""
        return list_labels(self._path)

    def read(self, entry: Labelled) -> list[Record | Dropped]:
        """Returns the record of one line."""
        return [entry if isinstance(entry, Dropped) else read_row(self._root, entry)]


def list_labels(path: str | os.PathLike[str]) -> Iterator[Labelled]:
    """Yields each row of a label file; see `labels.read_labels`.

    A line that gives no row comes as the `Dropped` that it will be counted as.
    """
    for row in read_labels(os.fspath(path)):
        if isinstance(row, Row):
            yield row
        else:
            yield Dropped(*row)


def read_image(root: str | os.PathLike[str], path: str, text: str) -> Record | Dropped:
    """Returns an image file below `root` as a record whose id is its path."""
    return read_row(root, Row("", path, text))


def read_row(root: str | os.PathLike[str], row: Row) -> Record | Dropped:
    """Returns the record of a row of a label file whose images are below `root`."""
    name = pages.record_id(row)
    try:
        return Record(name, pages.image_bytes(root, row), row.text)
    except FileNotFoundError as error:
        return Dropped(name, checks.MISSING, str(error))
    except RegionError as error:
        return Dropped(name, checks.INVALID_BOX, str(error))
    except ImageFileError as error:
        return Dropped(name, checks.reason_of_image(error), str(error))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        return Dropped(name, checks.UNREADABLE_RECORD, str(error))


def open_input(
    path: str | os.PathLike[str],
    *,
    format_name: str = "auto",
    images: str | os.PathLike[str] | None = None,
) -> Input:
    """Opens what `sources.open_source` opens, for conversion.

    Args:
      path: see `open_source`; a label file is streamed.
      format_name: one of `FORMATS`; what is found must be of that format.
      images: the folder that the paths of a label file are relative to.

    Raises what `open_source` raises, and `ValueError` for another format.
    """
    if format_name not in FORMATS:
        raise ValueError(f"--from: expected one of {FORMATS}, got {format_name!r}")
    path = os.path.expanduser(os.fspath(path))
    images = None if images is None else os.path.expanduser(os.fspath(images))
    label_file = _label_file(path)
    if label_file is not None:
        found = detect_label_format(label_file)
        opened: Input = LabelFileInput(label_file, images)
    else:
        source = open_source(path, images=images)
        found = _OTHER_FORMATS[_kind_of(source)]
        opened = SourceInput(source, path)
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


def _data_files(path: str) -> list[str]:
    """Returns the shards, or the LMDB's file, of a path that `open_source` opens."""
    if os.path.isfile(path):
        return [path]
    folder = path if os.path.isdir(path) else path.rpartition("#")[0]
    if not os.path.isdir(folder):
        return sorted(glob.glob(path))
    names = sorted(os.listdir(folder))
    wanted = (n for n in names if n == "data.mdb" or SHARD_SUFFIX in n)
    return [os.path.join(folder, name) for name in wanted]


def _label_file(path: str) -> str | None:
    """Returns the label file that `path` is, or the one of a folder."""
    if os.path.isfile(path):
        is_binary = path.endswith((SHARD_SUFFIX, ".mdb")) or is_lmdb_file(path)
        return None if is_binary else path
    if not os.path.isdir(path):
        return None
    names = os.listdir(path)
    if {INDEX_NAME, "features.json", "data.mdb"} & set(names):
        return None
    if any(SHARD_SUFFIX in name for name in names):
        return None  # a dataset that was never finished
    found = label_files(sorted(names))
    return os.path.join(path, found[0]) if len(found) == 1 else None
