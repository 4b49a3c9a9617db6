"""Opens what a user has: datasets of word crops in any known format.

Every source is a random-access sequence of `{id, image, text}`, as grain reads it. It
can be pickled into worker processes, each of which opens its own files.
"""

from __future__ import annotations

import glob
import os

from robustscanner_jax.data.file_source import (
    has_images,
    open_image_folder,
    open_label_file,
)
from robustscanner_jax.data.lmdb_source import LmdbSource, is_lmdb_file
from robustscanner_jax.data.reads import Source
from robustscanner_jax.data.records import INDEX_NAME, SHARD_SUFFIX
from robustscanner_jax.data.shard_source import ShardSource, TfdsSource, open_dataset

KNOWN_FORMATS = (
    "a dataset folder of this project (index.json), a wildcard of .array_record files, "
    "a TFDS folder (features.json), an LMDB (data.mdb), a label file (path TAB label, "
    "PaddleOCR's list of pages, ICDAR gt.txt, MJSynth annotation, MMOCR json, jsonl or "
    "txt, CSV), or a folder of images named label_anything.jpg"
)
_LABEL_SUFFIXES = (".tsv", ".txt", ".json", ".jsonl", ".csv")
LABEL_STEMS = ("labels", "label", "gt")
_DATASET_MARKS = (INDEX_NAME, "features.json", "data.mdb")


def open_source(
    path: str | os.PathLike[str], *, images: str | os.PathLike[str] | None = None
) -> Source:
    """Opens a dataset in any of `KNOWN_FORMATS`, told apart by content.

    Args:
      path: a file, a folder, or a wildcard of .array_record files (which reads shards
        without an index, so also an unfinished dataset). A TFDS folder with several
        splits takes one after `#`: `words/1.0.0#test`.
      images: the folder that the paths in a label file, or in an LMDB of labels, are
        relative to; found by itself where the images lie beside it.

    Raises `FileNotFoundError` where there is nothing, and `ValueError` for a dataset
    that is empty, unfinished, damaged, or in no known format.
    """
    path = os.path.expanduser(os.fspath(path))
    images = None if images is None else os.path.expanduser(os.fspath(images))
    if os.path.isfile(path):
        return _open_file(path, images)
    if os.path.isdir(path):
        return _open_folder(path, None, images)
    folder, mark, split = path.rpartition("#")
    if mark and os.path.isdir(folder):
        return _open_folder(folder, split, images)
    if glob.has_magic(path):
        shards = sorted(glob.glob(path))
        if not shards:
            raise FileNotFoundError(f"{path}: no file matches")
        others = [shard for shard in shards if not shard.endswith(SHARD_SUFFIX)]
        if others:
            raise ValueError(
                f"{path}: expected a wildcard of {SHARD_SUFFIX} files, but it matches "
                f"{others[0]}"
            )
        return ShardSource(_name(shards[0]), shards)
    raise FileNotFoundError(f"{path}: there is no such file or folder")


def _name(path: str) -> str:
    """Returns the name of a dataset: its file's, or its folder's if that says more."""
    path = os.path.abspath(path)
    stem, _ = os.path.splitext(os.path.basename(path))
    if stem.lower() in (*LABEL_STEMS, "data"):
        stem = os.path.basename(os.path.dirname(path))
    elif path.endswith(SHARD_SUFFIX) and "-of-" in stem:
        stem = stem.rsplit("-", 3)[0]
    return stem.removesuffix(".lmdb") or "dataset"


def _open_file(path: str, images: str | None) -> Source:
    if os.path.getsize(path) == 0:
        raise ValueError(f"{path}: the file is empty")
    if path.endswith(SHARD_SUFFIX):
        return ShardSource(_name(path), [path])
    if is_lmdb_file(path):
        is_folder = os.path.basename(path) == "data.mdb"
        return LmdbSource(
            _name(path), os.path.dirname(path) or "." if is_folder else path, images
        )
    if path.lower().endswith(".mdb"):
        raise ValueError(f"{path}: broken LMDB, the file does not begin as one does")
    return open_label_file(path, _name(path), images)


def _open_folder(folder: str, split: str | None, images: str | None) -> Source:
    names = sorted(os.listdir(folder))
    if not names:
        raise ValueError(f"{folder}: the folder is empty")
    if "features.json" in names and "dataset_info.json" in names:
        return TfdsSource(folder, split)
    if split is not None:
        raise ValueError(
            f"{folder}: #{split} names a split, but this is no TFDS folder"
        )
    if INDEX_NAME in names:
        return open_dataset(folder)
    if "data.mdb" in names:
        data = os.path.join(folder, "data.mdb")
        if not is_lmdb_file(data):
            raise ValueError(f"{data}: broken LMDB, it does not begin as one does")
        return LmdbSource(_name(folder), folder, images)
    if any(SHARD_SUFFIX in name for name in names):
        wildcard = os.path.join(folder, "*" + SHARD_SUFFIX)
        raise ValueError(
            f"{folder}: {SHARD_SUFFIX} files but no {INDEX_NAME}: writing this dataset "
            "was never finished; run the generator or converter again, or give the "
            f"wildcard '{wildcard}' to read what is there"
        )
    labels = label_files(names)
    if len(labels) == 1:
        return _open_file(os.path.join(folder, labels[0]), images)
    if labels:
        raise ValueError(
            f"{folder}: holds several label files ({', '.join(labels[:6])}); name one, "
            f"such as {os.path.join(folder, labels[0])}"
        )
    inside = [name for name in names if _is_dataset(os.path.join(folder, name))]
    if inside:
        raise ValueError(
            f"{folder}: holds datasets in subfolders ({', '.join(inside[:6])}); name "
            f"one, such as {os.path.join(folder, inside[0])}"
        )
    if has_images(folder):
        return open_image_folder(folder, _name(folder))
    raise ValueError(f"{folder}: no dataset in a known format; known: {KNOWN_FORMATS}")


def label_files(names: list[str]) -> list[str]:
    """Returns the label file among `names` if one is named so, else all candidates."""
    candidates = [
        name
        for name in names
        if name.lower().endswith(_LABEL_SUFFIXES)
        and not name.lower().startswith(("readme", "license", "licence"))
    ]
    named = [n for n in candidates if os.path.splitext(n)[0].lower() in LABEL_STEMS]
    return named if len(named) == 1 else candidates


def _is_dataset(folder: str) -> bool:
    return any(os.path.isfile(os.path.join(folder, mark)) for mark in _DATASET_MARKS)
