"""The project's dataset format: word crops in sharded ArrayRecord files.

A dataset is a folder of shards `<name>-00000-of-00016.array_record` and an
`index.json`. The index is written last, so its presence marks a complete dataset.
Images stay encoded (JPEG or PNG bytes) and labels keep their original spelling:
filtering is the reader's choice. Shared by `data_prep` and the input pipeline; calls
no JAX function, because it runs in worker processes.
"""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from pathlib import Path
from typing import Any

import msgpack
from array_record.python import (
    array_record_module,  # pyright: ignore[reportAttributeAccessIssue]  # compiled
)

from robustscanner_jax.whole_file import write_whole_escaped

# Of one record and of the index. A reader refuses any other.
FORMAT_VERSION = 1
_KINDS = {"v": int, "id": str, "image": bytes, "text": str}
INDEX_NAME = "index.json"
SHARD_SUFFIX = ".array_record"
# Measured on 2 CPU cores: 94k records/s written, 46k read at random. Compressed, half
# of both, and JPEG bytes do not shrink. Larger groups make random reads decode a group.
WRITER_OPTIONS = "group_size:1,uncompressed"
# Riegeli reads ahead by default, which random access throws away.
READER_OPTIONS = "readahead_buffer_size:0"
# Word crops take 1 to 3 KB. With 32 KB random reads take half as long again.
_READER_BUFFER_BYTES = 4096


@dataclasses.dataclass(frozen=True)
class Record:
    """One word crop.

    Attributes:
      id: names the record in messages and reports, such as `mjsynth/000123`.
      image: the encoded image file, never empty in a useful record.
      text: the label in its original spelling.
    """

    id: str
    image: bytes
    text: str


def encode_record(record: Record) -> bytes:
    """Returns the bytes that one ArrayRecord entry holds.

    Raises `TypeError` where a field has another type than `Record` states, and
    `ValueError` for a string that UTF-8 cannot hold (a lone surrogate).
    """
    for field, kind in (("id", str), ("image", bytes), ("text", str)):
        value = getattr(record, field)
        if not isinstance(value, kind):
            raise TypeError(
                f"record {record.id!r}: expected {field} of type {kind.__name__}, "
                f"got {type(value).__name__}"
            )
    payload = {"v": FORMAT_VERSION, **dataclasses.asdict(record)}
    try:
        return msgpack.Packer().pack(payload)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"record {record.id!r}: id or text is not valid Unicode ({error})"
        ) from None


def decode_record(payload: bytes) -> Record:
    """Returns the record that `encode_record` wrote; `ValueError` names any damage."""
    return Record(**decode_fields(payload))


def decode_fields(payload: bytes) -> dict[str, Any]:
    """Returns `id`, `image` and `text` of a record, as `decode_record` does."""
    try:
        fields = msgpack.unpackb(payload)
    except Exception as error:  # msgpack has no common base for its failures
        reason = f"{type(error).__name__}: {error}".rstrip(": ")
        raise ValueError(
            f"damaged record of {len(payload)} bytes: not msgpack ({reason})"
        ) from None
    if (
        isinstance(fields, dict)
        and {key: type(value) for key, value in fields.items()} == _KINDS
        and fields.pop("v") == FORMAT_VERSION
    ):
        return fields
    raise ValueError(_damage(fields))


def _damage(fields: Any) -> str:
    """Returns what is wrong with the content of a record."""
    if not isinstance(fields, dict):
        return f"damaged record: expected a map, got {type(fields).__name__}"
    version = fields.get("v")
    if version != FORMAT_VERSION or isinstance(version, bool):
        return (
            f"record format version {version!r} is not supported, "
            f"expected {FORMAT_VERSION}"
        )
    for field, kind in _KINDS.items():
        if type(fields.get(field)) is not kind:
            came = type(fields[field]).__name__ if field in fields else "no such field"
            return (
                f"damaged record {fields.get('id')!r}: expected {field} of type "
                f"{kind.__name__}, got {came}"
            )
    return f"damaged record {fields['id']!r}: unknown fields {fields.keys() - _KINDS}"


def shard_path(
    folder: str | os.PathLike[str], name: str, shard: int, num_shards: int
) -> str:
    """Returns the path of one shard: `FOLDER/<name>-00000-of-00016.array_record`."""
    if not 0 <= shard < num_shards:
        raise ValueError(f"need 0 <= shard < num_shards, got {shard} of {num_shards}")
    if not name or "/" in name or os.sep in name:
        raise ValueError(f"dataset name: expected a name without a slash, got {name!r}")
    file_name = f"{name}-{shard:05d}-of-{num_shards:05d}{SHARD_SUFFIX}"
    return os.path.join(folder, file_name)


def open_shard(path: str | os.PathLike[str]) -> array_record_module.ArrayRecordReader:
    """Returns a random-access reader of one shard.

    Raises `FileNotFoundError`, or `ValueError` naming the file where it is damaged or
    truncated (the table of contents stands at the end of the file).
    """
    path = os.fspath(path)
    with open(path, "rb"):  # the extension says nothing of a missing file
        pass
    reader = array_record_module.ArrayRecordReader(
        path, options=READER_OPTIONS, file_reader_buffer_size=_READER_BUFFER_BYTES
    )
    # Nor of a truncated one: it counts no records, and only a read says why.
    if not reader.ok():
        try:
            reader.read([0])
            reason = "no reason given"
        except RuntimeError as error:
            reason = str(error)
        raise ValueError(
            f"{path}: damaged or truncated ArrayRecord file of "
            f"{os.path.getsize(path)} bytes, write it again ({reason})"
        )
    return reader


class RecordWriter:
    """Writes one shard; use as a context manager.

    The records go to a temporary file beside `path`, which takes the name `path` only
    when the block ends without an error: a shard under its final name is complete.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._path = Path(path)
        self._temporary = self._path.with_name(
            f"{self._path.name}.{uuid.uuid4().hex}.tmp"
        )
        self._writer: array_record_module.ArrayRecordWriter | None = None
        self.count = 0  # records written so far

    def __enter__(self) -> RecordWriter:
        """Creates the folder and opens the temporary file."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # The extension would report a folder that is not writable only when closed.
        with open(self._temporary, "wb"):
            pass
        self._writer = array_record_module.ArrayRecordWriter(
            str(self._temporary), WRITER_OPTIONS
        )
        return self

    def write(self, record: Record) -> None:
        """Appends one record; raises `OSError` where the disk does not take it."""
        if self._writer is None:
            raise ValueError(f"{self._path}: write outside of the `with` block")
        payload = encode_record(record)
        try:
            self._writer.write(payload)
        except RuntimeError as error:
            raise OSError(f"{self._path}: write failed ({error})") from None
        self.count += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Publishes the shard, or removes what was written if the block failed."""
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                writer.close()
            if kind is None:
                os.replace(self._temporary, self._path)
        except RuntimeError as error:
            if kind is None:
                raise OSError(f"{self._path}: write failed ({error})") from None
        finally:
            self._temporary.unlink(missing_ok=True)


def write_index(
    folder: str | os.PathLike[str],
    *,
    name: str,
    count: int,
    num_shards: int,
    charset: str,
    source: dict[str, Any],
) -> None:
    """Marks a dataset as complete by writing its `index.json`, atomically.

    Args:
      folder: holds the finished shards.
      name: of the dataset; the shards' names begin with it.
      count: records in all shards together.
      num_shards: all of which must exist.
      charset: the characters that occur in the labels, or that were declared.
      source: JSON-able settings of the generator or converter.

    Raises `ValueError` where the shards do not hold `count` records together, and what
    `open_shard` raises where one is missing or damaged.
    """
    shard_counts = []
    for shard in range(num_shards):
        reader = open_shard(shard_path(folder, name, shard, num_shards))
        shard_counts.append(reader.num_records())
        reader.close()
    if sum(shard_counts) != count:
        raise ValueError(
            f"{folder}: the {num_shards} shards of {name} hold {sum(shard_counts)} "
            f"records, expected {count}"
        )
    index = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "count": count,
        "num_shards": num_shards,
        "shard_counts": shard_counts,
        "charset": charset,
        "source": source,
    }
    text = json.dumps(index, indent=2, ensure_ascii=False)
    write_whole_escaped(Path(folder) / INDEX_NAME, text + "\n")


def read_index(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns the index of a complete dataset; the keys are those of `write_index`.

    `format_version` and `shard_counts` (records per shard) come with them. Raises
    `FileNotFoundError` where there is no finished dataset, `ValueError` where the index
    is damaged or of another version.
    """
    path = Path(folder) / INDEX_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder}: no {INDEX_NAME}, so this is not a dataset folder, or writing "
            "it was never finished; run the generator or converter again"
        )
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are both
        raise ValueError(f"{path}: damaged index ({error})") from None
    version = index.get("format_version") if isinstance(index, dict) else None
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{path}: index format version {version!r} is not supported, "
            f"expected {FORMAT_VERSION}"
        )
    kinds = {"name": str, "count": int, "num_shards": int, "charset": str}
    kinds |= {"shard_counts": list, "source": dict}
    for key, kind in kinds.items():
        if type(index.get(key)) is not kind:
            raise ValueError(
                f"{path}: damaged index, expected {key} of type {kind.__name__}, "
                f"got {index.get(key)!r}"
            )
    counts = index["shard_counts"]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError(f"{path}: damaged index, expected counts of records: {counts}")
    if len(counts) != index["num_shards"] or sum(counts) != index["count"]:
        raise ValueError(
            f"{path}: damaged index, the shard counts {counts} do not add up to "
            f"{index['count']} records in {index['num_shards']} shards"
        )
    return index
