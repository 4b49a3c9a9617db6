"""The small benchmarks: IIIT5K, SVT, SVTP and CUTE80."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from data_prep import checks
from data_prep.builders.base import Reader, crop, decode_page, text_lines
from data_prep.builders.listed import LabelList
from data_prep.checks import Dropped
from data_prep.inputs import read_image
from robustscanner_jax import packages
from robustscanner_jax.data.records import Record


class IIIT5K(Reader):
    """2,000 words to train on, 3,000 to test."""

    NAME = "iiit5k"
    SPLITS = ("train", "test")
    NEEDS = "IIIT5K-Word_V3.0.tar.gz unpacked (traindata.mat, or trainCharBound.mat)"

    def annotations(self) -> list[Path]:
        """Returns the table."""
        return [self.find(f"{self.split}data.mat", f"{self.split}CharBound.mat")]

    def entries(self) -> Iterator[tuple[str, str]]:
        """Yields (path, text)."""
        scipy_io = packages.optional("scipy.io", f"{self.root}: reading IIIT5K")
        (path,) = self.annotations()
        try:
            content = scipy_io.loadmat(os.fspath(path))
            rows = content[path.stem].reshape(-1)
            text_key = "GroundTruth" if "GroundTruth" in rows.dtype.names else "chars"
            names, texts = rows["ImgName"], rows[text_key]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: expected a table {path.stem} of ImgName and GroundTruth or "
                f"chars ({error})"
            ) from None
        for name, text in zip(names, texts, strict=True):
            yield str(name[0]), str(text[0]) if len(text) else ""

    def read(self, entry: tuple[str, str]) -> list[Record | Dropped]:
        """Returns the record of one row."""
        return [read_image(self.root, *entry)]


class SVT(Reader):
    """Words cut out of street views, 647 to test; the labels are upper case."""

    NAME = "svt"
    SPLITS = ("train", "test")
    NEEDS = "svt.zip unpacked (train.xml, test.xml and img/)"

    def annotations(self) -> list[Path]:
        """Returns the XML."""
        return [self.find(f"{self.split}.xml", f"svt1/{self.split}.xml")]

    def entries(self) -> Iterator[tuple[str, list[tuple[tuple[float, ...], str]]]]:
        """Yields (page, its boxes (x, y, w, h) with their words)."""
        (path,) = self.annotations()
        try:
            for page in ElementTree.parse(path).getroot().iter("image"):
                words = [
                    (
                        tuple(
                            float(box.attrib[k]) for k in ("x", "y", "width", "height")
                        ),
                        box.findtext("tag") or "",
                    )
                    for box in page.iter("taggedRectangle")
                ]
                yield page.findtext("imageName") or "", words
        except (ElementTree.ParseError, KeyError, ValueError) as error:
            raise ValueError(f"{path}: expected SVT's XML ({error})") from None

    def read(
        self, entry: tuple[str, list[tuple[tuple[float, ...], str]]]
    ) -> Iterator[Record | Dropped]:
        """Yields the words of one page. A box beyond its edge is cut there."""
        name, words = entry
        (path,) = self.annotations()
        page = decode_page(path.parent / name, name)
        for i, ((x, y, w, h), text) in enumerate(words):
            record_id = f"{name}#{i}"
            if isinstance(page, Dropped):
                yield Dropped(record_id, page.reason, page.detail)
                continue
            height, width = page.shape[:2]
            box = (max(x, 0), max(y, 0), min(x + w, width), min(y + h, height))
            yield crop(page, box, record_id=record_id, text=text, lossless=True)


class SVTP(LabelList):
    """645 words of SVT seen from the side; a line is `13_15_0_par.jpg WYNDHAM`."""

    NAME = "svtp"
    SPLITS = ("test",)
    NEEDS = "the images and gt.txt"
    LISTS = ("gt.txt", "label.txt", "labels.tsv")
    FOLDERS = ("", "image", "images")


class CUTE80(Reader):
    """288 words on curves; a line is `timage/001.jpg RONALDO 1 RONALDO`.

    Some of the authors' labels have slips. A corrected list replaces gt.txt: the
    first two fields count.
    """

    NAME = "cute80"
    SPLITS = ("test",)
    NEEDS = "the folder timage and gt.txt"

    def annotations(self) -> list[Path]:
        """Returns the list."""
        return [self.find("gt.txt", "labels.txt", "timage/gt.txt")]

    def entries(self) -> Iterator[str]:
        """Yields the lines."""
        return text_lines(*self.annotations())

    def read(self, entry: str) -> list[Record | Dropped]:
        """Returns the record of one line."""
        fields = entry.split()
        if len(fields) < 2:
            detail = f"expected `image label`, got {entry[:80]!r}"
            return [Dropped(fields[0], checks.UNREADABLE_RECORD, detail)]
        return [read_image(self.root, fields[0], fields[1])]
