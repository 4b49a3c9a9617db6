"""Records per second of each dataset format, from a cold and a warm page cache.

Run: python -m benchmarks.reading --input=labels.tsv --workdir=DIR

The records of a label file are written as LMDB and as ArrayRecord, then read by one
process, not decoded. "One by one" is `source[i]`, as the pipeline reads; "together" is
one call for many records, which ArrayRecord alone offers. A cold cache is what a
dataset larger than memory meets: before each such run the kernel is asked to forget
the files (`posix_fadvise`, which needs no rights).
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import lmdb
import numpy as np

from data_prep.convert import convert
from robustscanner_jax.data.records import decode_record, open_shard
from robustscanner_jax.data.sources import Source, open_source

TOGETHER = 2048  # records of one call
Read = Callable[[Sequence[int]], Iterator[object]]


def write_lmdb(source: Source, folder: Path) -> None:
    """Writes the layout of clovaai's benchmark; a folder that is there stays."""
    if (folder / "data.mdb").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(folder), map_size=1 << 36) as environment:
        with environment.begin(write=True) as transaction:
            for i in range(len(source)):
                element = source[i]
                transaction.put(b"image-%09d" % (i + 1), element["image"])
                transaction.put(b"label-%09d" % (i + 1), element["text"].encode())
            transaction.put(b"num-samples", b"%d" % len(source))


def forget(paths: Sequence[str | Path]) -> None:
    """Asks the kernel to drop files from its cache; they must be on the disk."""
    for path in paths:
        file = os.open(path, os.O_RDONLY)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(file)


def one_by_one(path: str | Path) -> Read:
    """Returns a function that reads records by `source[i]`."""
    source = open_source(path)
    return lambda order: (source[i] for i in order)


def together(path: str | Path) -> Read:
    """Returns a function that reads many records of a shard in one call."""
    shards = [open_shard(file) for file in sorted(Path(path).glob("*.array_record"))]
    ends = np.cumsum([shard.num_records() for shard in shards])
    starts = np.concatenate([[0], ends[:-1]])

    def read(order: Sequence[int]) -> Iterator[object]:
        for first in range(0, len(order), TOGETHER):
            wanted = np.asarray(order[first : first + TOGETHER])
            owners = np.searchsorted(ends, wanted, side="right")
            for owner in np.unique(owners):
                places = wanted[owners == owner] - starts[owner]
                low, high = int(places[0]), int(places[-1]) + 1
                in_order = np.array_equal(places, np.arange(low, high))
                reader = shards[owner]
                found = reader.read(low, high) if in_order else reader.read(places)
                yield from map(decode_record, found)

    return read


def rate(read: Read, order: Sequence[int]) -> float:
    """Returns records a second."""
    started = time.perf_counter()
    count = sum(1 for _ in read(order))
    return count / (time.perf_counter() - started)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", required=True, help="label file of single images")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20_000, help="records to read")
    flags = parser.parse_args()
    shards, database = flags.workdir / "array_record", flags.workdir / "lmdb"
    convert(flags.input, shards)
    source = open_source(shards)
    write_lmdb(source, database)
    os.sync()
    count, total = min(flags.count, len(source)), len(source)
    names = [source[i]["id"] for i in range(total)]
    folder = Path(flags.input).parent
    formats = {
        "single files": (one_by_one, flags.input, [folder / name for name in names]),
        "LMDB": (one_by_one, database, [database / "data.mdb"]),
        "ArrayRecord": (one_by_one, shards, sorted(shards.glob("*.array_record"))),
        "ArrayRecord, together": (
            together,
            shards,
            sorted(shards.glob("*.array_record")),
        ),
    }
    start = min(total - count, total // 10)
    orders = {
        "in order": range(start, start + count),
        "at random": np.random.default_rng(0).permutation(total)[:count].tolist(),
    }
    heads = [f"{order}, {cache}" for order in orders for cache in ("cold", "warm")]
    print(f"{total:,} records, {count:,} read; records a second")
    print(f"| format | {' | '.join(heads)} |\n|---|{'---:|' * len(heads)}")
    del source
    for name, (opened, path, files) in formats.items():
        rates = []
        for order in orders.values():
            forget(files)  # before it is opened: mapped pages would stay
            read = opened(path)
            rates += [rate(read, order), rate(read, order)]
            del read
        cells = " | ".join(f"{value:,.0f}" for value in rates)
        print(f"| {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
