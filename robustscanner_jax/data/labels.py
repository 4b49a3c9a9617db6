"""Reads label files of other toolkits: rows of (image path, text).

The format is told from the first lines, never from the file's name. Rows are streamed,
so a list of millions of words costs no more memory than its longest line.
"""

from __future__ import annotations

import collections
import csv
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator

from robustscanner_jax.data import label_lines
from robustscanner_jax.data.label_lines import BadLine, Row
from robustscanner_jax.regions import parse_regions

# Detection looks at no more than this, or the first line, however large the file is.
_HEAD_BYTES = 65536
_HEAD_LINES = 100

_TSV, _PAGES = "path TAB label", "PaddleOCR pages"
_NO_WORDS = "path TAB []"  # a line of either

# The name of each format, as messages show it, and its reader.
LABEL_READERS: dict[str, Callable[[str], Iterator[Row | BadLine]]] = {
    _TSV: label_lines.by_line(label_lines.parse_tsv),
    _PAGES: label_lines.read_pages,
    "ICDAR gt.txt": label_lines.by_line(label_lines.parse_icdar),
    "MJSynth annotation": label_lines.by_line(label_lines.parse_mjsynth),
    "MMOCR json": label_lines.read_mmocr_json,
    "MMOCR jsonl": label_lines.by_line(label_lines.parse_mmocr_jsonl),
    "MMOCR txt": label_lines.by_line(label_lines.parse_mmocr_txt),
    "CSV": label_lines.read_csv,
}


def detect_label_format(path: str) -> str:
    """Returns the format of a label file, a key of `LABEL_READERS`.

    It is the one that most of the first lines have, so that a slip in the first line
    does not decide. Reads the first 64 KiB, or the first line. Raises `ValueError` for
    an empty file and for a format that is not known.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
        if b"\n" not in head:  # a page of very many words
            head += file.readline(label_lines.LONGEST_LINE)
    raw_lines = head.removeprefix(label_lines.BOM).split(b"\n")
    if len(head) >= _HEAD_BYTES and len(raw_lines) > 1:
        raw_lines.pop()  # cut in the middle
    decoded = (line.decode("utf-8", "replace").strip("\r") for line in raw_lines)
    lines = [line for line in decoded if line.strip()][:_HEAD_LINES]
    if not lines:
        raise ValueError(f"{path}: the file is empty")
    if re.match(rb"\s*\[\s*\{", head.removeprefix(label_lines.BOM)):
        raise ValueError(
            f"{path}: a JSON list; expected an object a line, with filename and text: "
            f"jq -c '.[]' {shlex.quote(os.path.basename(path))} > labels.jsonl"
        )
    found = _whole_file_format(lines[0], head)
    if found is None:
        votes = collections.Counter(filter(None, map(_line_format, lines)))
        # A page without words, or a label: the other lines tell.
        either = votes.pop(_NO_WORDS, 0)
        if either:
            votes[_PAGES if votes[_PAGES] else _TSV] += either
        found = next((name for name, _ in votes.most_common(1)), None)
    if found is None:
        raise ValueError(
            f"{path}: unknown format, the first line is {lines[0][:80]!r}; known label "
            f"files are {', '.join(LABEL_READERS)}"
        )
    return found


def is_list_of_pages(path: str) -> bool:
    """Returns whether a file, of labels or of image paths alone, lists regions.

    Raises `OSError` where it cannot be read.
    """
    try:
        return detect_label_format(path) == _PAGES
    except ValueError:  # paths alone
        return False


def read_labels(path: str) -> Iterator[Row | BadLine]:
    """Yields the rows of a label file in any known format, and the lines that are none.

    A byte order mark, Windows line ends and blank lines are accepted.

    Words marked as illegible fit the format.

    Raises `ValueError`, after the last line, where not one line fits the format, or
    where most are not UTF-8: the file is then another one than it seemed.
    """
    name = detect_label_format(path)
    good, bad, not_utf8 = 0, 0, 0
    first_bad, first_not_utf8 = None, None
    for row in LABEL_READERS[name](path):
        if isinstance(row, Row) or row.reason == label_lines.ILLEGIBLE:
            good += 1
        else:
            bad += 1
            first_bad = first_bad or row
            if row.reason == label_lines.NOT_UTF8:
                not_utf8 += 1
                first_not_utf8 = first_not_utf8 or row
        yield row
    if first_not_utf8 and 2 * not_utf8 > good + bad:
        raise ValueError(
            f"{path}: {not_utf8} of {good + bad} lines are not UTF-8, the first is "
            f"{first_not_utf8.where}, {first_not_utf8.detail}; convert the file to "
            "UTF-8"
        )
    if first_bad and not good:
        raise ValueError(
            f"{path}: looks like {name}, but not one of {bad} lines fits; the first is "
            f"{first_bad.where}: {first_bad.detail}"
        )


def _whole_file_format(first: str, head: bytes) -> str | None:
    """Returns a format that the first line alone can tell."""
    if first.lstrip().startswith("{"):
        try:
            is_whole = "data_list" in json.loads(first)
        except (ValueError, RecursionError):  # the object goes on beyond this line
            is_whole = b'"data_list"' in head
        return "MMOCR json" if is_whole else None
    columns = label_lines.csv_columns(_csv_fields(first))
    return "CSV" if columns and columns[2] else None


def _line_format(line: str) -> str | None:
    """Returns the format that a line seems to have."""
    # A label may hold a NUL or bytes that are not UTF-8; a line with both is no text.
    if "\0" in line and "\ufffd" in line:
        return None
    if line.lstrip().startswith("{"):
        try:
            return "MMOCR jsonl" if "filename" in json.loads(line) else None
        except (ValueError, RecursionError):  # a damaged line, or a file name
            pass
    if "\t" in line:
        regions = parse_regions(line.partition("\t")[2])
        return _PAGES if regions else _TSV if regions is None else _NO_WORDS
    if re.match(r'[^,]+,\s+"', line):  # CSV writes no space before a quote
        return "ICDAR gt.txt"
    if label_lines.MJSYNTH_LINE.fullmatch(line):
        return "MJSynth annotation"
    if label_lines.csv_columns(_csv_fields(line)):
        return "CSV"
    image, space, _ = line.partition(" ")
    is_image = image.lower().endswith(label_lines.IMAGE_SUFFIXES)
    return "MMOCR txt" if is_image and space else None


def _csv_fields(line: str) -> list[str]:
    try:
        return next(csv.reader([line]), [])
    except csv.Error:  # such as a carriage return inside
        return []
