"""Records per second of each dataset format, from a cold and a warm page cache.

Run: python -m benchmarks.reading --input=labels.tsv --workdir=DIR

The records of a label file are written as LMDB and as ArrayRecord, then read by one
process, not decoded, in the way of the input pipeline: the records of a batch with one
call, of which ArrayRecord alone makes use. "One by one" is ArrayRecord without that. A
cold cache is what a dataset larger than memory meets: before each such run the kernel
is asked to forget the files (`posix_fadvise`, which needs no rights). The formats take
turns, and the table shows medians and, below, ArrayRecord's ratios of paired runs.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import lmdb
import numpy as np

from data_prep.convert import convert
from robustscanner_jax.data.reads import read_elements
from robustscanner_jax.data.sources import Source, open_source


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


def one_by_one(source: Source, order: Sequence[int], batch: int) -> int:
    """Reads records by `source[i]`, and returns how many."""
    del batch
    return sum(1 for i in order if source[i])


def in_batches(source: Source, order: Sequence[int], batch: int) -> int:
    """Reads records as the pipeline does, and returns how many."""
    return sum(
        len(read_elements(source, sorted(order[first : first + batch])))
        for first in range(0, len(order), batch)
    )


def rates(
    formats: dict[str, tuple[Callable[..., int], str | Path, list[Path]]],
    orders: dict[str, Sequence[int]],
    *,
    batch: int,
    repeats: int,
) -> dict[str, np.ndarray]:
    """Returns records a second, `[repeats, 2 * orders]`, of each format.

    Columns are cold and warm of the first order, then of the next. The formats take
    turns within a repeat, so that they meet the same load of the machine.
    """
    found = {name: np.zeros((repeats, 2 * len(orders))) for name in formats}
    for repeat in range(repeats):
        for column, order in enumerate(orders.values()):
            for name, (read, path, files) in formats.items():
                forget(files)  # before it is opened: mapped pages would stay
                source = open_source(path)
                for warm in (0, 1):
                    started = time.perf_counter()
                    count = read(source, order, batch)
                    seconds = time.perf_counter() - started
                    found[name][repeat, 2 * column + warm] = count / seconds
                del source
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", required=True, help="label file of single images")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20_000, help="records to read")
    parser.add_argument("--batch", type=int, default=256, help="records of a batch")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--shards", type=int, default=0, help="0: one for 10,000")
    flags = parser.parse_args()
    shards, database = flags.workdir / "array_record", flags.workdir / "lmdb"
    convert(flags.input, shards, shards=flags.shards)
    source = open_source(shards)
    write_lmdb(source, database)
    os.sync()
    count, total = min(flags.count, len(source)), len(source)
    folder = Path(flags.input).parent
    images = [folder / source[i]["id"] for i in range(total)]
    del source
    files = sorted(shards.glob("*.array_record"))
    formats = {
        "single files": (in_batches, flags.input, images),
        "LMDB": (in_batches, database, [database / "data.mdb"]),
        "ArrayRecord, one by one": (one_by_one, shards, files),
        "ArrayRecord": (in_batches, shards, files),
    }
    start = min(total - count, total // 10)
    orders = {
        "in order": range(start, start + count),
        "at random": np.random.default_rng(0).permutation(total)[:count].tolist(),
    }
    found = rates(formats, orders, batch=flags.batch, repeats=flags.repeats)
    heads = [f"{order}, {cache}" for order in orders for cache in ("cold", "warm")]
    print(
        f"{total:,} records in {len(files)} shards, {count:,} read in batches of "
        f"{flags.batch}; records a second, medians of {flags.repeats}"
    )
    print(f"| format | {' | '.join(heads)} |\n|---|{'---:|' * len(heads)}")
    for name, measured in found.items():
        cells = " | ".join(f"{value:,.0f}" for value in np.median(measured, axis=0))
        print(f"| {name} | {cells} |")
    for name in ("single files", "LMDB"):
        ratios = np.median(found["ArrayRecord"] / found[name], axis=0)
        cells = " | ".join(f"{value:.2f}" for value in ratios)
        print(f"| ArrayRecord / {name} | {cells} |")


if __name__ == "__main__":
    main()
