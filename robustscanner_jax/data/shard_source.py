"""Sources in ArrayRecord shards: this project's datasets, and TensorFlow Datasets'."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Sequence
from typing import Any, SupportsIndex

import numpy as np

from robustscanner_jax.data.records import (
    decode_record,
    open_shard,
    read_index,
    shard_path,
)


class ShardSource:
    """Records that `records.RecordWriter` wrote, over any number of shards.

    Every shard is opened once here, to count its records and to find a damaged one
    before the run starts; afterwards each process opens a shard at its first read.
    """

    def __init__(self, name: str, paths: Sequence[str]):
        """Counts the records; raises what `records.open_shard` raises."""
        self.name = name
        self._paths = list(paths)
        self.shard_counts = []
        for path in self._paths:
            reader = open_shard(path)
            self.shard_counts.append(reader.num_records())
            reader.close()
        self._ends = np.cumsum(self.shard_counts, dtype=np.int64)
        self._readers: dict[int, Any] = {}
        if not len(self):
            raise ValueError(f"{os.path.dirname(paths[0])}: the dataset is empty")

    def __len__(self) -> int:
        """Returns the number of records."""
        return int(self._ends[-1])

    def __repr__(self) -> str:
        """Returns a short description."""
        return f"ShardSource({self.name!r}, {self._paths[0]!r}, {len(self)} records)"

    def __getstate__(self) -> dict[str, Any]:
        """Drops the open files: every process opens its own."""
        return {**self.__dict__, "_readers": {}}

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """Returns `id`, `image` (encoded) and `text`.

        Raises `ValueError` naming the shard and the record's place in it where the
        record is damaged; other records stay readable.
        """
        i = operator.index(index)
        if not 0 <= i < len(self):
            raise IndexError(f"{self.name}: no record {i}, there are {len(self)}")
        shard = int(np.searchsorted(self._ends, i, side="right"))
        place = i - (int(self._ends[shard - 1]) if shard else 0)
        if shard not in self._readers:
            self._readers[shard] = open_shard(self._paths[shard])
        try:
            record = decode_record(self._readers[shard].read([place])[0])
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{self._paths[shard]}, record {place}: {error}") from None
        return {"id": record.id, "image": record.image, "text": record.text}


def open_dataset(folder: str) -> ShardSource:
    """Opens a complete dataset folder.

    Raises `ValueError` where a shard holds another number of records than the index
    says, and what `records.read_index` and `records.open_shard` raise.
    """
    index = read_index(folder)
    name, num_shards = index["name"], index["num_shards"]
    if not index["count"]:
        raise ValueError(f"{folder}: the dataset is empty")
    paths = [shard_path(folder, name, i, num_shards) for i in range(num_shards)]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise ValueError(
            f"{missing[0]}: missing, and {len(missing) - 1} more of the {num_shards} "
            "shards that index.json lists"
        )
    source = ShardSource(name, paths)
    for path, found, expected in zip(
        paths, source.shard_counts, index["shard_counts"], strict=True
    ):
        if found != expected:
            raise ValueError(
                f"{path}: holds {found} records, index.json says {expected}"
            )
    return source


class TfdsSource:
    """One split of a TensorFlow Datasets folder in ArrayRecord format.

    Read through `tensorflow_datasets`, which needs no TensorFlow for this. The features
    are `image`, `text` (or `label`), and `id` where there is one.
    """

    def __init__(self, folder: str, split: str | None = None):
        """Checks the folder's description; `split` may be left out if there is one.

        Raises `ValueError` for another file format, features or splits.
        """
        info = _read_json(os.path.join(folder, "dataset_info.json"))
        features = _read_json(os.path.join(folder, "features.json"))
        if info.get("fileFormat") != "array_record":
            raise ValueError(
                f"{folder}: expected a TFDS dataset in array_record format, got "
                f"{info.get('fileFormat')!r}; build it with file_format=array_record"
            )
        names = features.get("featuresDict", {}).get("features", {}).keys()
        text_keys = [key for key in ("text", "label") if key in names]
        if "image" not in names or not text_keys:
            raise ValueError(
                f"{folder}: expected features image and text, got {sorted(names)}"
            )
        splits = [entry["name"] for entry in info.get("splits", [])]
        if split is None and len(splits) == 1:
            split = splits[0]
        if split not in splits:
            raise ValueError(
                f"{folder}: name one of its splits, such as "
                f"{folder}#{splits[0] if splits else 'test'}; there are {splits}"
            )
        self.name = f"{info.get('name', 'tfds')}-{split}"
        self._folder, self._split, self._text_key = folder, split, text_keys[0]
        self._has_id = "id" in names
        self._records = None
        if not len(self):
            raise ValueError(f"{folder}: the split {split} is empty")

    def __len__(self) -> int:
        """Returns the number of records."""
        return len(self._open())

    def __repr__(self) -> str:
        """Returns a short description."""
        return f"TfdsSource({self.name!r}, {self._folder!r}, {len(self)} records)"

    def __getstate__(self) -> dict[str, Any]:
        """Drops the open dataset: every process opens its own."""
        return {**self.__dict__, "_records": None}

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """Returns `id`, `image` (encoded) and `text`."""
        i = operator.index(index)
        if not 0 <= i < len(self):
            raise IndexError(f"{self.name}: no record {i}, there are {len(self)}")
        try:
            example = self._open()[i]
            text = example[self._text_key]
            text = text.decode("utf-8") if isinstance(text, bytes) else str(text)
            record_id = f"{self.name}/{i:09d}"
            if self._has_id:
                record_id = example["id"]
                if isinstance(record_id, bytes):
                    record_id = record_id.decode("utf-8")
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{self._folder}, record {i}: {error}") from None
        return {"id": str(record_id), "image": example["image"], "text": text}

    def _open(self) -> Any:
        if self._records is None:
            try:
                import tensorflow_datasets as tfds
            except ModuleNotFoundError:
                raise ValueError(
                    f"{self._folder}: reading a TFDS folder needs a package: "
                    "pip install tensorflow-datasets"
                ) from None
            builder = tfds.builder_from_directory(self._folder)
            decoders = {"image": tfds.decode.SkipDecoding()}
            self._records = builder.as_data_source(
                # A decorator there hides the signature.
                split=self._split,  # pyright: ignore[reportCallIssue]
                decoders=decoders,
            )
        return self._records


def _read_json(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {str(content)[:60]}")
    return content
