"""LMDB word datasets as clovaai's benchmark, PARSeq, PaddleOCR and MMOCR write them.

Keys are `num-samples`, `image-000000001` and `label-000000001`, counted from 1. MMOCR
also writes a variant without images, whose labels are JSON with a file name.
"""

from __future__ import annotations

import json
import operator
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any, SupportsIndex

from robustscanner_jax import packages
from robustscanner_jax.data.file_source import find_images

# LMDB refuses to open a database twice in one process, so that two sources of the same
# path share it. Opening is guarded: grain reads with several threads.
_environments: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_opening = threading.Lock()


def is_lmdb_file(path: str) -> bool:
    """Returns whether a file begins as LMDB's data file does."""
    with open(path, "rb") as file:
        head = file.read(24)
    return head[16:20] in (b"\xde\xc0\xef\xbe", b"\xbe\xef\xc0\xde")


class LmdbSource:
    """Word crops in an LMDB folder (or its data file), read without decoding.

    The database is opened once per process, at the first read. `__getitem__` raises
    `ValueError` naming path and key for a record that is missing or not UTF-8.
    """

    def __init__(self, name: str, path: str, images: str | None = None):
        """Checks the database; `images` is the folder of a label-only variant.

        Raises `ValueError` for a database that is broken, truncated, empty, or has
        other keys.
        """
        self.name = name
        self._path = path
        self._images = None
        self._environment = None
        count = self._get(b"num-samples")
        if count is None:
            raise ValueError(
                f"{path}: no key num-samples, so this is not an LMDB of word images"
            )
        try:
            self._count = int(count)
        except ValueError:
            raise ValueError(
                f"{path}: expected a number under num-samples, got {count[:40]!r}"
            ) from None
        if self._count < 1:
            raise ValueError(f"{path}: the LMDB is empty, num-samples is {self._count}")
        if self._get(b"label-%09d" % self._count) is None:
            raise ValueError(
                f"{path}: num-samples says {self._count}, but label-{self._count:09d} "
                "is missing; the LMDB was not written to its end"
            )
        if self._get(b"image-000000001") is None:
            self._images = find_images(os.path.abspath(path), self._named(), images)

    def __len__(self) -> int:
        """Returns the number of records."""
        return self._count

    def __repr__(self) -> str:
        """Returns a short description."""
        return f"LmdbSource({self.name!r}, {self._path!r}, {len(self)} records)"

    def __getstate__(self) -> dict[str, Any]:
        """Drops the open database: every process opens its own."""
        return {**self.__dict__, "_environment": None}

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """Returns `id`, `image` (encoded) and `text`."""
        i = operator.index(index)
        if not 0 <= i < len(self):
            raise IndexError(f"{self.name}: no record {i}, there are {len(self)}")
        number = i + 1
        if self._images is not None:
            file_name, text = self._file_label(number)
            try:
                with open(os.path.join(self._images, file_name), "rb") as file:
                    return {"id": file_name, "image": file.read(), "text": text}
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"record {file_name}: image cannot be read ({error})"
                ) from None
        image = self._get(b"image-%09d" % number)
        if image is None:
            raise ValueError(f"{self._path}: key image-{number:09d} is missing")
        text = self._label(number)
        return {"id": f"{self.name}/{number:09d}", "image": image, "text": text}

    def _label(self, number: int) -> str:
        label = self._get(b"label-%09d" % number)
        if label is None:
            raise ValueError(f"{self._path}: key label-{number:09d} is missing")
        try:
            return label.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(
                f"{self._path}: label-{number:09d} is not UTF-8: {label[:60]!r}"
            ) from None

    def _named(self) -> Iterator[tuple[str, str]]:
        """Yields where each image is named, and its path; labels that are none not."""
        yield self._path, self._file_label(1)[0]
        for number in range(2, self._count + 1):
            try:
                yield self._path, self._file_label(number)[0]
            except ValueError:
                continue

    def _file_label(self, number: int) -> tuple[str, str]:
        """Returns (file name, text) of MMOCR's variant without images."""
        label = self._label(number)
        try:
            entry = json.loads(label)
            return str(entry["filename"]), str(entry["text"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{self._path}: no image-{number:09d}, and label-{number:09d} is not "
                f"JSON with filename and text: {label[:60]!r}"
            ) from None

    def _get(self, key: bytes) -> bytes | None:
        if self._environment is None:
            self._environment = _open_environment(self._path)
        try:
            with self._environment.begin() as transaction:
                return transaction.get(key)
        except Exception as error:  # lmdb.Error; the module is imported late
            raise ValueError(
                f"{self._path}: broken LMDB, key {key.decode()} cannot be read "
                f"({error})"
            ) from None


def _open_environment(path: str) -> Any:
    lmdb = packages.optional("lmdb", f"{path}: reading an LMDB")
    file = os.path.join(path, "data.mdb") if os.path.isdir(path) else path
    key = os.path.realpath(file)
    with _opening:
        environment = _environments.get(key)
        if environment is not None:
            return environment
        try:
            environment = lmdb.open(
                path,
                subdir=os.path.isdir(path),
                readonly=True,
                lock=False,
                readahead=False,
                meminit=False,
            )
        except lmdb.Error as error:
            raise ValueError(f"{path}: broken LMDB ({error})") from None
        # A page beyond the end of a truncated file kills the process with SIGBUS.
        page_bytes = environment.stat()["psize"]
        expected = (environment.info()["last_pgno"] + 1) * page_bytes
        size = os.path.getsize(file)
        if size < expected:
            environment.close()
            raise ValueError(
                f"{file}: broken LMDB, truncated to {size} of {expected} bytes; copy "
                "or convert it again"
            )
        _environments[key] = environment
        return environment
