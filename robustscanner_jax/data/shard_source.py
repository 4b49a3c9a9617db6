"""Sources in ArrayRecord shards: this project's datasets, and TensorFlow Datasets'."""

from __future__ import annotations

import bisect
import collections
import concurrent.futures
import contextlib
import itertools
import json
import operator
import os
import time
from collections.abc import Sequence
from typing import Any, SupportsIndex

from robustscanner_jax import packages
from robustscanner_jax.data.records import (
    decode_fields,
    open_shard,
    read_index,
    shard_path,
)

# A record and, in the place of one that cannot be read, its error.
Found = dict[str, Any] | ValueError
# Seconds: a record that takes longer came from the disk. In memory it takes 2e-6.
_WAITED = 50e-6
# So many of them in a call mean a disk: a busy machine interrupts one or two as well.
_MANY_WAITS = 4
# That wait for the disk at the same time, each for a shard of its own.
_READING_THREADS = 8


class ShardSource:
    """Records that `records.RecordWriter` wrote, over any number of shards.

    Every shard is opened once here, to count its records and to find a damaged one
    before the run starts; afterwards each process opens a shard at its first read, and
    keeps it open.
    """

    def __init__(self, name: str, paths: Sequence[str]):
        """Counts the records; raises what `records.open_shard` raises."""
        self.name = name
        self._paths = list(paths)
        _allow_open_files(len(self._paths))
        self.shard_counts = []
        for path in self._paths:
            reader = open_shard(path)
            self.shard_counts.append(reader.num_records())
            reader.close()
        self._ends = list(itertools.accumulate(self.shard_counts))
        self._readers: dict[int, Any] = {}
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        if not len(self):
            raise ValueError(f"{os.path.dirname(paths[0])}: the dataset is empty")

    def __len__(self) -> int:
        """Returns the number of records."""
        return self._ends[-1]

    def __repr__(self) -> str:
        """Returns a short description."""
        return f"ShardSource({self.name!r}, {self._paths[0]!r}, {len(self)} records)"

    def __getstate__(self) -> dict[str, Any]:
        """Drops open files and threads: every process has its own."""
        return {**self.__dict__, "_readers": {}, "_pool": None}

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """Returns `id`, `image` (encoded) and `text`.

        Raises `ValueError` naming the shard and the record's place in it where the
        record is damaged; other records stay readable.
        """
        i = operator.index(index)
        if not 0 <= i < len(self):
            raise IndexError(f"{self.name}: no record {i}, there are {len(self)}")
        found = self._read_one(i)
        if isinstance(found, ValueError):
            raise found
        return found

    def read_many(self, indices: Sequence[int]) -> list[Found]:
        """Returns `self[i]` of each, or the error that it raises.

        Records in the page cache are read one after the other. Once some had to be
        waited for, the rest is read in threads, with one call a shard.
        """
        found: list[Any] = [None] * len(indices)
        if len(indices) and not 0 <= min(indices) <= max(indices) < len(self):
            raise IndexError(f"{self.name}: expected records below {len(self)}")
        rows = sorted(range(len(indices)), key=indices.__getitem__)
        waits, started = 0, time.perf_counter()
        for done, row in enumerate(rows, 1):
            found[row] = self._read_one(indices[row])
            ended = time.perf_counter()
            waits += ended - started > _WAITED
            started = ended
            if waits == _MANY_WAITS:
                self._read_in_threads(rows[done:], indices, found)
                break
        return found

    def _read_one(self, i: int) -> Found:
        shard = bisect.bisect_right(self._ends, i)
        place = i - self._ends[shard] + self.shard_counts[shard]
        try:
            # A range, though of one: a list of one costs seven times as much.
            reader = self._readers.get(shard) or self._open(shard)
            (payload,) = reader.read(place, place + 1)
            return decode_fields(payload)
        except (RuntimeError, ValueError, OSError) as error:
            return ValueError(f"{self._paths[shard]}, record {place}: {error}")

    def _read_in_threads(
        self, rows: Sequence[int], indices: Sequence[int], found: list[Any]
    ) -> None:
        """Fills the rows of `found`."""
        shards: dict[int, list[int]] = collections.defaultdict(list)
        for row in rows:
            shards[bisect.bisect_right(self._ends, indices[row])].append(row)

        def read(mine: Sequence[int]) -> None:
            for shard in mine:
                wanted = [indices[row] for row in shards[shard]]
                ones = self._read_together(shard, wanted)
                for row, one in zip(shards[shard], ones, strict=True):
                    found[row] = one

        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(_READING_THREADS)
        # A task a thread, not a shard: a large dataset has a shard for each record.
        shares = [list(shards)[i::_READING_THREADS] for i in range(_READING_THREADS)]
        for _ in self._pool.map(read, filter(None, shares)):
            pass  # raises what a thread raised

    def _read_together(self, shard: int, wanted: Sequence[int]) -> list[Found]:
        """Reads records of a shard in one call, in which the library uses threads."""
        start = self._ends[shard] - self.shard_counts[shard]
        try:
            reader = self._readers.get(shard) or self._open(shard)
            payloads = reader.read([i - start for i in wanted])
            return [decode_fields(payload) for payload in payloads]
        except (RuntimeError, ValueError, OSError):
            # The call does not say which of them is damaged.
            return [self._read_one(i) for i in wanted]

    def _open(self, shard: int) -> Any:
        reader = self._readers[shard] = open_shard(self._paths[shard])
        return reader


def _allow_open_files(count: int) -> None:
    """Raises the number of files that this process may open by `count`, if it can.

    Workers inherit it. The usual 1,024 are fewer than a large dataset has shards.
    """
    try:
        import resource
    except ImportError:  # Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    wanted = soft + count
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):  # a system's own upper bound
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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
            return self._element(i, self._open()[i])
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{self._folder}, record {i}: {error}") from None

    def read_many(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Returns `self[i]` of each; raises if any of them is damaged."""
        examples = self._open().__getitems__(list(indices))
        return [self._element(i, e) for i, e in zip(indices, examples, strict=True)]

    def _element(self, i: int, example: dict[str, Any]) -> dict[str, Any]:
        text = example[self._text_key]
        text = text.decode("utf-8") if isinstance(text, bytes) else str(text)
        record_id = example["id"] if self._has_id else f"{self.name}/{i:09d}"
        if isinstance(record_id, bytes):
            record_id = record_id.decode("utf-8")
        return {"id": str(record_id), "image": example["image"], "text": text}

    def _open(self) -> Any:
        if self._records is None:
            tfds = packages.optional(
                "tensorflow_datasets", f"{self._folder}: reading a TFDS folder"
            )
            builder = tfds.builder_from_directory(self._folder)
            self._records = builder.as_data_source(
                split=self._split, decoders={"image": tfds.decode.SkipDecoding()}
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
