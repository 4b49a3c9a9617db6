"""What the lines of a label file say, in each format of other toolkits.

A line that does not fit its format becomes a `BadLine` in the place of its rows, so
that a list of millions with one slip in it is still a list.
"""

from __future__ import annotations

import collections
import csv
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from robustscanner_jax.data.json_list import stream_json_list
from robustscanner_jax.regions import RegionError, as_points, parse_regions

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
BOM = b"\xef\xbb\xbf"

# Why a line gives no row.
NOT_UTF8 = "label not UTF-8"
TOO_FEW = "too few columns"
TOO_MANY = "too many columns"
STRAY_QUOTE = "missing or stray quote"
NOT_JSON = "line not JSON"
NO_FIELD = "path or label missing"
OTHER_FORM = "line of another form"
ILLEGIBLE = "marked as illegible"
LINE_REASONS = (
    NOT_UTF8,
    TOO_FEW,
    TOO_MANY,
    STRAY_QUOTE,
    NOT_JSON,
    NO_FIELD,
    OTHER_FORM,
    ILLEGIBLE,
)

# A line beyond this is no label but a damaged file, and is not taken into memory.
LONGEST_LINE = 1 << 20  # bytes
# A quoted CSV label may go over several lines. Beyond so many the quote is a stray one.
_CSV_ROW_LINES = 10
# ICDAR: `word_1.png, "Tiredness"`.
_ICDAR_LINE = re.compile(r'([^,]+),\s+(".*")\s*', re.DOTALL)
# MJSynth: `./3000/7/182_slinking_71711.jpg 71711`: the number is a lexicon index.
MJSYNTH_LINE = re.compile(r"(\S*?\d+_([^_/]+)_(\d+)\.\w+) \3\s*")
# How PaddleOCR's and ICDAR's labels mark what nobody could read.
_ILLEGIBLE = ("###", "*")
_CSV_PATH_COLUMNS = ("filename", "file_name", "file", "path", "img_path", "image_path")
_CSV_PATH_COLUMNS += ("image", "img")
_CSV_TEXT_COLUMNS = ("text", "label", "words", "word", "transcription")


class Row(NamedTuple):
    """One labelled image: where the row stands, the image's path and its label.

    Where the image is a page of several words, `points` is the outline of this one as
    JSON, see `regions`, and `number` its place among those of the page, from 0.
    """

    where: str  # such as `gt.txt, line 3`; for messages
    path: str
    text: str
    points: str = ""
    number: int = 0


class BadLine(NamedTuple):
    """A line that gives no row, one of `LINE_REASONS`, and what came."""

    where: str
    reason: str
    detail: str


class LineError(ValueError):
    """A line that does not fit its format; `reason` is one of `LINE_REASONS`."""

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        """Returns what came, for a person."""
        return self.detail


def numbered_lines(path: str) -> Iterator[tuple[int, str | LineError]]:
    """Yields (line number, text without the line end); only line feeds end a line."""
    with open(path, "rb") as file:
        for number in itertools.count(1):
            raw = file.readline(LONGEST_LINE)
            if not raw:
                return
            if len(raw) == LONGEST_LINE and not raw.endswith(b"\n"):
                while raw and not raw.endswith(b"\n"):
                    raw = file.readline(LONGEST_LINE)
                yield number, LineError(OTHER_FORM, "longer than a million bytes")
                continue
            raw = raw.removeprefix(BOM) if number == 1 else raw
            raw = raw.removesuffix(b"\n").removesuffix(b"\r")
            try:
                yield number, raw.decode("utf-8")
            except UnicodeDecodeError as error:
                detail = f"not UTF-8 at byte {error.start} of the line: {raw[:60]!r}"
                yield number, LineError(NOT_UTF8, detail)


Fields = Iterable[tuple[str, str]]  # the (path, text) that one line holds


def by_line(parse: Callable[[str], Fields]) -> Callable[[str], Iterator[Row | BadLine]]:
    """Returns a reader of a format in which every line stands for itself."""
    return lambda path: _each_line(
        path, lambda line, where: (Row(where, *fields) for fields in parse(line))
    )


def _each_line(
    path: str, read: Callable[[str, str], Iterable[Row | BadLine]]
) -> Iterator[Row | BadLine]:
    """Yields what `read(line, where)` finds; a `LineError` costs the rest of a line."""
    for number, line in numbered_lines(path):
        where = f"{path}, line {number}"
        try:
            if isinstance(line, LineError):
                raise line
            if line.strip():
                yield from read(line, where)
        except LineError as error:
            yield BadLine(where, error.reason, error.detail)


def parse_tsv(line: str) -> Fields:
    """Returns what a line of `path TAB label` holds."""
    fields = line.split("\t")
    if len(fields) != 2:
        detail = f"expected path TAB label, got {len(fields) - 1} TABs in {line[:80]!r}"
        if _ICDAR_LINE.fullmatch(line):
            detail += ', which has the form `image, "label"` of ICDAR'
        raise LineError(TOO_FEW if len(fields) < 2 else TOO_MANY, detail)
    image, text = fields
    images = [image]
    if image.startswith("["):
        # PaddleOCR allows a JSON list of several images of the same text.
        try:
            images = json.loads(image)
        except ValueError:  # a file name that begins so
            pass
        if not images:
            raise LineError(NO_FIELD, f"expected images in the list, got {image}")
    return [(str(one), text) for one in images]


def parse_icdar(line: str) -> Fields:
    """Returns what a line of `image, "label"` holds."""
    match = _ICDAR_LINE.fullmatch(line)
    quoted = match[2] if match else ""
    if match is None or len(quoted) < 2:
        reason = STRAY_QUOTE if "," in line else TOO_FEW
        raise LineError(reason, f'expected `image, "label"`, got {line[:80]!r}')
    # One pair of quotes belongs to the format; any other is part of the label.
    return [(match[1].strip(), quoted[1:-1].replace('\\"', '"'))]


def parse_mjsynth(line: str) -> Fields:
    """Returns what a line of MJSynth's annotation and its file name hold."""
    match = MJSYNTH_LINE.fullmatch(line)
    if match is None:
        detail = f"expected `path/NUMBER_label_INDEX.jpg INDEX`, got {line[:80]!r}"
        raise LineError(OTHER_FORM, detail)
    return [(match[1], match[2])]


def parse_mmocr_txt(line: str) -> Fields:
    """Returns what a line of `image label` holds."""
    image, space, text = line.partition(" ")
    if not space:
        raise LineError(TOO_FEW, f"expected `image label`, got {line[:80]!r}")
    # Everything after the first space: MMOCR itself keeps the first word only.
    return [(image, text)]


def parse_mmocr_jsonl(line: str) -> Fields:
    """Returns what a line of `{"filename": ..., "text": ...}` holds."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LineError(NOT_JSON, f"not JSON ({error}): {line[:80]!r}") from None
    return [(_string(entry, "filename"), _string(entry, "text"))]


def read_mmocr_json(path: str) -> Iterator[Row | BadLine]:
    """Yields the rows of MMOCR's json, one file in one object; it is streamed."""
    for number, entry in enumerate(stream_json_list(path, "data_list")):
        where = f"{path}, data_list[{number}]"
        try:
            image = _string(entry, "img_path")
            instances = entry.get("instances")
            if not isinstance(instances, list) or len(instances) != 1:
                detail = "expected one instance, the word of the crop, got "
                raise LineError(NO_FIELD, detail + str(instances)[:80])
            yield Row(where, image, _string(instances[0], "text"))
        except LineError as error:
            yield BadLine(where, error.reason, error.detail)


def read_pages(path: str) -> Iterator[Row | BadLine]:
    """Returns a row for each word of PaddleOCR's list of pages.

    A line is `page TAB JSON`, see `regions.parse_regions`. Words marked as illegible
    (`###`, or `*`) are no rows.
    """
    return _each_line(path, _words_of_page)


def _words_of_page(line: str, where: str) -> Iterator[Row | BadLine]:
    image, _, listed = line.partition("\t")
    regions = parse_regions(listed)
    if regions is None:
        detail = f"expected page TAB [{{...}}, ...], got {line[:80]!r}"
        raise LineError(OTHER_FORM, detail)
    for index, (points, text) in enumerate(regions):
        of_region = f"{where}, region {index}"
        try:
            as_points(points)
        except RegionError as error:
            yield BadLine(of_region, OTHER_FORM, str(error))
            continue
        if not isinstance(text, str):
            detail = f"expected a string 'transcription', got {text!r:.80}"
            yield BadLine(of_region, NO_FIELD, detail)
        elif text in _ILLEGIBLE:
            yield BadLine(of_region, ILLEGIBLE, repr(text))
        else:
            yield Row(of_region, image, text, json.dumps(points), index)


def _string(entry: Any, key: str) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, str):
        raise LineError(NO_FIELD, f"expected a string {key!r} in {str(entry)[:80]}")
    return value


def read_csv(path: str) -> Iterator[Row | BadLine]:
    """Yields the rows of a CSV file, with or without a line of column names."""
    columns, width = None, 0
    for number, fields in _csv_rows(path):
        where = f"{path}, line {number}"
        if isinstance(fields, LineError):
            yield BadLine(where, fields.reason, fields.detail)
        elif not fields:
            continue
        elif columns is None:
            columns, width = csv_columns(fields), len(fields)
            if columns is None:
                detail = f"expected path and label, got {fields[:4]}"
                yield BadLine(where, OTHER_FORM, detail)
            elif not columns[2]:
                yield Row(where, fields[columns[0]], fields[columns[1]])
        elif len(fields) != width:
            reason = TOO_FEW if len(fields) < width else TOO_MANY
            detail = f"expected {width} columns, got {len(fields)}: {str(fields)[:80]}"
            if reason == TOO_MANY:
                detail += "; a label that holds a comma needs quotes"
            yield BadLine(where, reason, detail)
        else:
            yield Row(where, fields[columns[0]], fields[columns[1]])


def csv_columns(header: list[str]) -> tuple[int, int, bool] | None:
    """Returns the columns of path and text, and whether `header` names them."""
    names = [name.strip().lower() for name in header]
    paths = [i for i, name in enumerate(names) if name in _CSV_PATH_COLUMNS]
    texts = [i for i, name in enumerate(names) if name in _CSV_TEXT_COLUMNS]
    if paths and texts:
        return paths[0], texts[0], True
    if len(names) == 2 and names[0].endswith(IMAGE_SUFFIXES):
        return 0, 1, False
    return None


def _csv_rows(path: str) -> Iterator[tuple[int, list[str] | LineError]]:
    """Yields the number of a row's first line, and the row's fields."""
    lines = numbered_lines(path)
    ahead = collections.deque(itertools.islice(lines, _CSV_ROW_LINES))
    while ahead:
        count, found = 1, None
        try:
            found, count = _csv_fields(line for _, line in ahead)
        except LineError as error:
            found = error
        yield ahead[0][0], found
        for _ in range(count):
            ahead.popleft()
        ahead.extend(itertools.islice(lines, count))


def _csv_fields(ahead: Iterable[str | LineError]) -> tuple[list[str], int]:
    """Returns the fields of the row that begins in the first line, and its lines."""
    lines = []
    for line in ahead:
        if isinstance(line, LineError):
            if not lines:
                raise line
            break  # inside an open quote: it is a bad line of its own
        lines.append(line + "\n")
        try:
            return next(csv.reader(lines, strict=True), []), len(lines)
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                continue
            if len(lines) > 1:  # what follows the open quote is a row of its own
                break
            reason = STRAY_QUOTE if "expected after" in str(error) else OTHER_FORM
            raise LineError(reason, f"{error}: {lines[0][:80]!r}") from None
    raise LineError(STRAY_QUOTE, f"a quote is not closed: {lines[0][:80]!r}")
