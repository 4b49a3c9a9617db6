"""COCO-Text: the word crops of v1.4, and words cut out by the annotation of v2."""

from __future__ import annotations

import dataclasses
import html
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep import checks
from data_prep.builders.base import Reader, crop, decode_page, text_lines
from data_prep.checks import Dropped
from data_prep.inputs import read_image
from robustscanner_jax.data.records import Record

_WANTED = {"legibility": "legible", "language": "english", "class": "machine printed"}
_PAD = 2  # pixels around a box, as PARSeq's tools add


class CocoTextV1(Reader):
    """Word crops, one file each; a line of the list is `1221677,|EBB,|`.

    The pipes belong to the format. All between them is the label, as it is spelled:
    commas, pipes, and the `*` that some words begin or end with.
    """

    NAME = "coco_text_v1"
    SPLITS = ("train", "val")
    NEEDS = "COCO-Text-words-trainval.zip unpacked (train_words_gt.txt, train_words/)"

    def annotations(self) -> list[Path]:
        """Returns the list."""
        return [self.find(f"{self.split}_words_gt.txt")]

    def entries(self) -> Iterator[str]:
        """Yields the lines."""
        return text_lines(*self.annotations())

    def read(self, entry: str) -> list[Record | Dropped]:
        """Returns the record of one line; a label may hold commas."""
        number, comma, text = entry.partition(",")
        if not comma:
            detail = f"expected `number,|label|`, got {entry[:80]!r}"
            return [Dropped(number, checks.UNREADABLE_RECORD, detail)]
        if len(text) >= 2 and text.startswith("|") and text.endswith("|"):
            text = text[1:-1]
        folder = Path(self.root, f"{self.split}_words")
        return [read_image(folder, f"{number.strip()}.jpg", text)]


@dataclasses.dataclass(frozen=True)
class _Page:
    file_name: str
    words: list[tuple[str, list[float], str, str]]  # (id, box, text, why not)


class CocoTextV2(Reader):
    """Words that are legible, English and machine printed, with 2 pixels around them.

    A label in which `#` stands for what could not be read is left out: it is no whole
    transcription. `&amp;` and its like are how the file writes `&`. Nothing else of a
    label is changed: a `*` at either end, which PARSeq's tools take off, is kept, as
    `5*` is a hotel's sign. Who trains without it leaves `*` out of the charset.
    """

    NAME = "coco_text_v2"
    SPLITS = ("train", "val")
    NEEDS = "cocotext.v2.json and the folder train2014 of MS COCO"
    records_per_entry = 2.0

    def annotations(self) -> list[Path]:
        """Returns the annotation of all splits."""
        return [self.find("cocotext.v2.json")]

    def entries(self) -> Iterator[_Page]:
        """Yields the pages; the annotation is loaded whole."""
        (path,) = self.annotations()
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            pages, words = content["imgs"], content["anns"].items()
        except (ValueError, KeyError) as error:
            raise ValueError(
                f"{path}: expected JSON with imgs and anns ({error})"
            ) from None
        by_page: dict[str, list] = {}
        for word_id, word in words:
            text = html.unescape(word.get("utf8_string", ""))
            row = (str(word_id), word["bbox"], text, _why_not(word, text))
            by_page.setdefault(str(word["image_id"]), []).append(row)
        for page_id, page in pages.items():
            if page["set"] == self.split and str(page_id) in by_page:
                yield _Page(page["file_name"], by_page[str(page_id)])

    def read(self, entry: _Page) -> Iterator[Record | Dropped]:
        """Yields the words of one page."""
        wanted = [word for word in entry.words if not word[3]]
        for word_id, _, _, reason in entry.words:
            if reason:
                yield Dropped(word_id, checks.UNLABELLED, reason)
        if not wanted:
            return
        folder = self.find("train2014", ".")
        page = decode_page(folder / entry.file_name, entry.file_name)
        for word_id, (x, y, w, h), text, _ in wanted:
            if isinstance(page, Dropped):
                yield dataclasses.replace(page, id=word_id)
                continue
            name = f"{os.path.splitext(entry.file_name)[0]}#{word_id}"
            box = (x, y, x + w, y + h)
            yield crop(page, box, record_id=name, text=text, pad=_PAD, lossless=False)


def _why_not(word: dict[str, Any], text: str) -> str:
    for key, value in _WANTED.items():
        if word.get(key) != value:
            return f"{key} is {word.get(key)!r}"
    return f"a part could not be read: {text!r}" if "#" in text else ""
