"""Long lists in JSON files, entry by entry: a list of millions stays on the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

_BLOCK = 1 << 20  # characters
_BETWEEN = frozenset(" \t\r\n,:")  # of no weight where an entry may begin


def stream_json_list(path: str | os.PathLike[str], key: str) -> Iterator[Any]:
    """Yields the entries of the list under `key`, without reading the whole file.

    The first `"key"` counts; what follows the list is not looked at.

    Raises `ValueError` where there is no such list, where the file is no JSON or is cut
    off, and where it is not UTF-8.
    """
    decoder, mark = json.JSONDecoder(), f'"{key}"'
    with open(path, encoding="utf-8-sig") as file:
        text, start = "", 0

        def more() -> bool:
            nonlocal text, start
            try:
                block = file.read(_BLOCK)
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}: not UTF-8 ({error}); convert it") from None
            text, start = text[start:] + block, 0
            return bool(block)

        def next_mark() -> str:
            nonlocal start
            while True:
                while text[start : start + 1] in _BETWEEN:
                    start += 1
                if start < len(text) or not more():
                    return text[start : start + 1]

        while mark not in text:
            if not more():
                raise ValueError(f"{path}: expected a key {mark}, there is none")
        start = text.index(mark) + len(mark)
        if next_mark() != "[":
            raise ValueError(f"{path}: expected a list under {mark}")
        start += 1
        while next_mark() != "]":
            try:
                # A number could go on in the next block; objects and strings end.
                entry, start = decoder.raw_decode(text, start)
            except ValueError as error:
                if not more():
                    raise ValueError(
                        f"{path}: not JSON, or cut off ({error})"
                    ) from None
                continue
            yield entry
