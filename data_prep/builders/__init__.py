"""The published datasets, read from the files that their authors hand out.

One module for each family. `data_prep.convert --from=NAME` writes them in this
project's format, `data_prep.tfds_builders` as TensorFlow Datasets.
"""

from __future__ import annotations

import os

from data_prep.builders.base import Reader
from data_prep.builders.coco_text import CocoTextV1, CocoTextV2
from data_prep.builders.icdar import ICDAR2011, ICDAR2013, ICDAR2015
from data_prep.builders.mjsynth import MJSynth
from data_prep.builders.scenes import CUTE80, IIIT5K, SVT, SVTP
from data_prep.builders.synthtext import SynthAdd, SynthText
from data_prep.builders.union14m import Union14MBenchmark, Union14ML

_READERS: tuple[type[Reader], ...] = (
    *(MJSynth, SynthText, SynthAdd, CocoTextV1, CocoTextV2, IIIT5K, SVT, SVTP),
    *(ICDAR2011, ICDAR2013, ICDAR2015, CUTE80, Union14ML, Union14MBenchmark),
)
READERS: dict[str, type[Reader]] = {reader.NAME: reader for reader in _READERS}
NAMES = tuple(READERS)


def open_builder(name: str, root: str | os.PathLike[str], split: str) -> Reader:
    """Returns the reader of one split.

    Raises `ValueError` for a split that the dataset has not, `FileNotFoundError` where
    its files are not below `root`.
    """
    return READERS[name](os.path.expanduser(os.fspath(root)), split)
