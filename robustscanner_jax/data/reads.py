"""What a source of word crops is, and reading many of its records at once.

What is damaged is lost by itself alone.
"""

import contextlib
from collections.abc import Sequence
from typing import (
    Any,
    NotRequired,
    Protocol,
    SupportsIndex,
    TypedDict,
    cast,
    final,
    runtime_checkable,
)


class Source(Protocol):
    """A picklable random-access sequence of word crops."""

    name: str  # short, for tables and messages

    def __len__(self) -> int:
        """Returns the number of records, at least 1."""
        ...

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """Returns a record, with the keys of `Element`.

        Raises `ValueError` naming the record that is damaged or missing, `IndexError`
        outside of [0, len).
        """
        ...


@runtime_checkable
class BatchSource(Source, Protocol):
    """A source that reads many records in one call faster than one by one."""

    def read_many(self, indices: Sequence[int]) -> Sequence[dict[str, Any] | Exception]:
        """Returns `self[i]` of each, in that order, or the error that it raises.

        May as well raise for all of them: then they are read one by one.
        """
        ...


@final
class Element(TypedDict):
    """A record that could be read.

    `image` is what the source holds: the bytes of an image file, or BGR pixels
    `[h, w, 3]` uint8. Whether bytes are an image is seen when they are decoded.
    """

    id: str
    image: Any
    text: str


@final
class Lost(TypedDict):
    """What keeps the place of a record that could not be read."""

    id: str
    error: str
    text: NotRequired[str]


def read_elements(source: Source, indices: Sequence[int]) -> list[Element | Lost]:
    """Returns the elements of a source at `indices`, in that order.

    For a `BatchSource` that is one call, which opens and waits for each file once. A
    record that cannot be read, for whatever reason, is `Lost`, its place its `id`; its
    neighbours are not touched by it.
    """
    found: Sequence[dict[str, Any] | Exception] = ()
    if isinstance(source, BatchSource):
        # What fails as a whole is asked again record by record.
        with contextlib.suppress(Exception):
            found = source.read_many(indices)
    if len(found) != len(indices):
        found = [_read_one(source, index) for index in indices]
    return [
        _lost(source, index, one)
        if isinstance(one, Exception)
        else cast(Element | Lost, one)
        for index, one in zip(indices, found, strict=True)
    ]


def _read_one(source: Source, index: int) -> dict[str, Any] | Exception:
    try:
        return source[index]
    except Exception as error:  # each format's reader has its own
        return error


def _lost(source: Source, index: int, error: Exception) -> Lost:
    message = f"{type(error).__name__}: {error}"
    return {"id": f"{source.name}[{index}]", "error": message}
