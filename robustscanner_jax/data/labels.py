"""Reads label files of other toolkits: rows of (image path, text).

The format is told from the first bytes, never from the file's name. Rows are streamed,
so a list of millions of words costs no more memory than its text. A row that does not
fit the format stops the reading with the file and the line: a label that is wrong in
silence costs more than a run that does not start.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")

# Detection looks at no more than this, however large the file is.
_HEAD_BYTES = 65536
_BOM = b"\xef\xbb\xbf"
# ICDAR: `word_1.png, "Tiredness"`. CSV writes no space before a quote.
_ICDAR_LINE = re.compile(r'([^,]+),\s+(".*")\s*', re.DOTALL)
# MJSynth: `./3000/7/182_slinking_71711.jpg 71711`: the number is a lexicon index.
_MJSYNTH_LINE = re.compile(r"(\S*?\d+_([^_/]+)_(\d+)\.\w+) \3\s*")
_CSV_PATH_COLUMNS = ("filename", "file_name", "file", "path", "img_path", "image_path")
_CSV_PATH_COLUMNS += ("image", "img")
_CSV_TEXT_COLUMNS = ("text", "label", "words", "word", "transcription")


class Row(NamedTuple):
    """One labelled image: where the row stands, the image's path and its label."""

    where: str  # such as `gt.txt, line 3`; for messages
    path: str
    text: str


def detect_label_format(path: str) -> str:
    """Returns the format of a label file, a key of `LABEL_READERS`.

    Reads 64 KiB at most. Raises `ValueError` for an empty file and for a format that
    is not known.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    raw_lines = head.removeprefix(_BOM).split(b"\n")
    if len(head) == _HEAD_BYTES and len(raw_lines) > 1:
        raw_lines.pop()  # cut in the middle
    lines = (line.decode("utf-8", "replace").strip("\r") for line in raw_lines)
    first = next((line for line in lines if line.strip()), None)
    if first is None:
        raise ValueError(f"{path}: the file is empty")
    # A label may hold a NUL or bytes that are not UTF-8; a line with both is no text.
    binary = "\0" in first and "\ufffd" in first
    found = None if binary else _format_of(first, head)
    if found is None:
        raise ValueError(
            f"{path}: unknown format, the first line is {first[:80]!r}; known label "
            f"files are {', '.join(LABEL_READERS)}"
        )
    return found


def read_labels(path: str) -> Iterator[Row]:
    """Yields the rows of a label file in any known format.

    Raises `ValueError` naming file and line for a row that does not fit the format or
    is not UTF-8. A byte order mark, Windows line ends and blank lines are accepted.
    """
    return LABEL_READERS[detect_label_format(path)](path)


def _format_of(first: str, head: bytes) -> str | None:
    if first.lstrip().startswith("{"):
        try:
            keys = json.loads(first).keys()
        except ValueError:  # the object goes on beyond this line
            keys = {"data_list"} if b'"data_list"' in head else set()
        if "data_list" in keys:
            return "MMOCR json"
        return "MMOCR jsonl" if "filename" in keys else None
    if "\t" in first:
        return "path TAB label"
    if _ICDAR_LINE.fullmatch(first):
        return "ICDAR gt.txt"
    if _MJSYNTH_LINE.fullmatch(first):
        return "MJSynth annotation"
    if _csv_columns(next(csv.reader([first]), [])):
        return "CSV"
    if first.split(" ")[0].lower().endswith(IMAGE_SUFFIXES) and " " in first:
        return "MMOCR txt"
    return None


def _lines(path: str) -> Iterator[tuple[int, str]]:
    """Yields (line number, text without the line end); only line feeds end a line."""
    with open(path, "rb") as file:
        for number, raw in enumerate(file, 1):
            if number == 1:
                raw = raw.removeprefix(_BOM)
            raw = raw.removesuffix(b"\n").removesuffix(b"\r")
            try:
                yield number, raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: not UTF-8 at byte {error.start} of the "
                    f"line ({raw[:60]!r}); convert the file to UTF-8"
                ) from None


def _read_tsv(path: str) -> Iterator[Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        fields = line.split("\t")
        if len(fields) != 2:
            raise ValueError(
                f"{where}: expected path TAB label, got {len(fields) - 1} TABs in "
                f"{line[:80]!r}"
            )
        image, text = fields
        if not image.startswith("["):
            yield Row(where, image, text)
            continue
        # PaddleOCR allows a JSON list of several images of the same text.
        try:
            images = json.loads(image)
        except ValueError:
            images = [image]
        for one in images:
            yield Row(where, str(one), text)


def _read_icdar(path: str) -> Iterator[Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        match = _ICDAR_LINE.fullmatch(line)
        quoted = match[2] if match else ""
        if match is None or len(quoted) < 2:
            raise ValueError(
                f'{path}, line {number}: expected `image, "label"`, got {line[:80]!r}'
            )
        # One pair of quotes belongs to the format; any other is part of the label.
        text = quoted[1:-1].replace('\\"', '"')
        yield Row(f"{path}, line {number}", match[1].strip(), text)


def _read_mjsynth(path: str) -> Iterator[Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        match = _MJSYNTH_LINE.fullmatch(line)
        if match is None:
            raise ValueError(
                f"{path}, line {number}: expected `path/NUMBER_label_INDEX.jpg INDEX`, "
                f"got {line[:80]!r}"
            )
        yield Row(f"{path}, line {number}", match[1], match[2])


def _read_mmocr_txt(path: str) -> Iterator[Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        image, space, text = line.partition(" ")
        if not space:
            raise ValueError(
                f"{path}, line {number}: expected `image label`, got {line[:80]!r}"
            )
        # Everything after the first space: MMOCR itself keeps the first word only.
        yield Row(f"{path}, line {number}", image, text)


def _csv_columns(header: list[str]) -> tuple[int, int, bool] | None:
    """Returns the columns of path and text, and whether `header` names them."""
    names = [name.strip().lower() for name in header]
    paths = [i for i, name in enumerate(names) if name in _CSV_PATH_COLUMNS]
    texts = [i for i, name in enumerate(names) if name in _CSV_TEXT_COLUMNS]
    if paths and texts:
        return paths[0], texts[0], True
    if len(names) == 2 and names[0].endswith(IMAGE_SUFFIXES):
        return 0, 1, False
    return None


def _read_csv(path: str) -> Iterator[Row]:
    # The reader joins lines inside quotes, so it gets the line ends back.
    reader = csv.reader((line + "\n" for _, line in _lines(path)), strict=True)
    columns, width = None, 0
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
        if fields is None:
            return
        if not fields:
            continue
        where = f"{path}, line {reader.line_num}"
        if columns is None:
            columns, width = _csv_columns(fields), len(fields)
            if columns is None:
                raise ValueError(f"{where}: expected path and label, got {fields[:4]}")
            if columns[2]:
                continue
        if len(fields) != width:
            raise ValueError(
                f"{where}: expected {width} columns, got {len(fields)}; a label that "
                "holds a comma needs quotes"
            )
        yield Row(where, fields[columns[0]], fields[columns[1]])


def _read_mmocr_jsonl(path: str) -> Iterator[Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{where}: not JSON ({error})") from None
        yield Row(
            where, _string(entry, "filename", where), _string(entry, "text", where)
        )


def _read_mmocr_json(path: str) -> Iterator[Row]:
    with open(path, encoding="utf-8-sig") as file:
        try:
            entries = json.load(file)["data_list"]
        except (ValueError, KeyError) as error:  # of JSON, of UTF-8; no data_list
            raise ValueError(f"{path}: not MMOCR json ({error})") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path}: expected data_list to be a list, got {entries!r}")
    for number, entry in enumerate(entries):
        where = f"{path}, data_list[{number}]"
        image = _string(entry, "img_path", where)
        instances = entry.get("instances")
        if not isinstance(instances, list) or len(instances) != 1:
            raise ValueError(
                f"{where}: expected one instance, the word of the crop, got "
                f"{str(instances)[:80]}"
            )
        yield Row(where, image, _string(instances[0], "text", where))


def _string(entry: Any, key: str, where: str) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str):
        raise ValueError(f"{where}: expected a string {key!r} in {str(entry)[:80]}")
    return value


# The name of each format, as messages show it, and its reader.
LABEL_READERS: dict[str, Callable[[str], Iterator[Row]]] = {
    "path TAB label": _read_tsv,
    "ICDAR gt.txt": _read_icdar,
    "MJSynth annotation": _read_mjsynth,
    "MMOCR json": _read_mmocr_json,
    "MMOCR jsonl": _read_mmocr_jsonl,
    "MMOCR txt": _read_mmocr_txt,
    "CSV": _read_csv,
}
