"""Reads many records of a source at once; what is damaged is lost by itself alone."""

import contextlib
from collections.abc import Sequence
from typing import Any

Element = dict[str, Any]


def read_elements(source: Any, indices: Sequence[int]) -> list[Element]:
    """Returns the elements of a source at `indices`, in that order.

    Where the source has `read_many` that is one call, which opens and waits for each
    file once. A record that cannot be read, for whatever reason, is an element with its
    place as `id` and an `error`; its neighbours are not touched by it.
    """
    found: Sequence[Element | Exception] = ()
    if hasattr(source, "read_many"):
        # What fails as a whole is asked again record by record.
        with contextlib.suppress(Exception):
            found = source.read_many(indices)
    if len(found) != len(indices):
        found = [_read_one(source, index) for index in indices]
    return [
        _lost(source, index, one) if isinstance(one, Exception) else one
        for index, one in zip(indices, found, strict=True)
    ]


def _read_one(source: Any, index: int) -> Element | Exception:
    try:
        return source[index]
    except Exception as error:  # each format's reader has its own
        return error


def _lost(source: Any, index: int, error: Exception) -> Element:
    message = f"{type(error).__name__}: {error}"
    return {"id": f"{source.name}[{index}]", "error": message}
