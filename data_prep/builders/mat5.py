"""Streams the cells of a MATLAB 5 file: SynthText's gt.mat takes 2.6 GB when loaded.

Reads cell arrays of numbers and of strings, compressed or not, one cell at a time.
Format: "MAT-File Format", MathWorks, chapter 1, level 5.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

_HEADER_BYTES = 128
_MATRIX, _COMPRESSED = 14, 15
_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_TYPES |= {12: "i8", 13: "u8"}
_TEXT = {16: "utf-8", 17: "utf-16-le", 18: "utf-32-le", 2: "latin-1", 4: "utf-16-le"}
_CELL, _CHARACTERS = 1, 4
_NUMERIC = range(6, 16)
_BLOCK = 1 << 16


def stream_cells(
    path: str | os.PathLike[str], variable: str
) -> Iterator[np.ndarray | list[str]]:
    """Yields the cells of a variable, in MATLAB's order.

    Numbers come as an array; characters as the rows of the matrix, with their padding.

    Raises `ValueError` for a file of another format, and for one that is cut off.
    """
    with open(path, "rb") as file:
        _check_header(path, file.read(_HEADER_BYTES))
        offset = _HEADER_BYTES
        size = os.path.getsize(path)
        while offset + 8 <= size:
            file.seek(offset)
            kind, length = struct.unpack("<II", file.read(8))
            offset += 8 + length
            reader = _Reader(path, file, length, compressed=kind == _COMPRESSED)
            if kind == _COMPRESSED:
                kind, _ = reader.tag()
            if kind == _MATRIX:
                shape_class, shape, name = reader.matrix_head()
                if name == variable:
                    yield from _cells(path, reader, shape_class, shape, name)
                    return
    raise ValueError(f"{path}: expected a variable {variable!r}, it holds none")


def _check_header(path: str | os.PathLike[str], header: bytes) -> None:
    if header.startswith(b"\x89HDF") or b"MATLAB 7.3" in header:
        raise ValueError(
            f"{path}: expected a MATLAB 5 file, this is MATLAB 7.3 (HDF5); save it "
            "with -v7 in MATLAB, or take the authors' file"
        )
    if len(header) < _HEADER_BYTES or header[126:128] != b"IM":
        raise ValueError(f"{path}: expected a MATLAB 5 file of little-endian numbers")


def _cells(
    path: str | os.PathLike[str],
    reader: "_Reader",
    shape_class: int,
    shape: tuple[int, ...],
    name: str,
) -> Iterator[np.ndarray | list[str]]:
    if shape_class != _CELL:
        raise ValueError(f"{path}: expected {name!r} to be a cell array")
    for _ in range(int(np.prod(shape))):
        kind, length = reader.tag()
        if kind != _MATRIX:
            raise ValueError(f"{path}: expected a matrix in {name!r}, got type {kind}")
        if not length:  # MATLAB's empty cell
            yield np.zeros((0, 0))
            continue
        yield reader.matrix()


class _Reader:
    """Reads the elements of one variable, unpacking it as it goes."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        file: BinaryIO,
        length: int,
        *,
        compressed: bool,
    ):
        self._path, self._file, self._left = path, file, length
        self._unpack = zlib.decompressobj() if compressed else None
        self._buffer = bytearray()

    def take(self, count: int) -> bytes:
        while len(self._buffer) < count:
            block = self._file.read(min(_BLOCK, self._left))
            if not block:
                raise ValueError(f"{self._path}: cut off, copy or unpack it again")
            self._left -= len(block)
            try:
                self._buffer += (
                    self._unpack.decompress(block) if self._unpack else block
                )
            except zlib.error as error:
                raise ValueError(f"{self._path}: damaged ({error})") from None
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def tag(self) -> tuple[int, int]:
        """Returns (type, bytes) of an element that is not a small one."""
        kind, length = struct.unpack("<II", self.take(8))
        return kind, length

    def element(self) -> tuple[int, bytes]:
        """Returns (type, data) of an element, small or padded to 8 bytes."""
        head = self.take(8)
        kind, length = struct.unpack("<II", head)
        if kind >> 16:
            return kind & 0xFFFF, head[4 : 4 + (kind >> 16)]
        data = self.take(length)
        self.take(-length % 8)
        return kind, data

    def matrix_head(self) -> tuple[int, tuple[int, ...], str]:
        """Returns (class, shape, name)."""
        _, flags = self.element()
        _, shape = self.element()
        _, name = self.element()
        return flags[0], tuple(np.frombuffer(shape, "<i4").tolist()), name.decode()

    def matrix(self) -> np.ndarray | list[str]:
        shape_class, shape, _ = self.matrix_head()
        kind, data = self.element()
        if shape_class == _CHARACTERS:
            text = data.decode(_TEXT.get(kind, "utf-8"))
            rows = shape[0] if shape else 0
            return [text[row::rows] for row in range(rows)]
        if shape_class in _NUMERIC and kind in _TYPES:
            values = np.frombuffer(data, "<" + _TYPES[kind])
            return values.reshape(shape, order="F")
        raise ValueError(
            f"{self._path}: expected numbers or characters in a cell, got class "
            f"{shape_class}"
        )
