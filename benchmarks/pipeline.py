"""Images per second of the input pipeline, by source and number of workers.

Run: python -m benchmarks.pipeline --workers=0,2,16 --batch=256 SOURCE...

SOURCE is what a config's `data.train` takes: a path, or `rendered:full?count=1000000`.
Compare with a training step of `benchmarks.throughput`: the input should be at least
1.3 times as fast.
"""

import argparse
import time

from robustscanner_jax.charset import DICT90, Charset
from robustscanner_jax.data.pipeline import training_batches
from robustscanner_jax.data.rendered import open_named
from robustscanner_jax.data.transforms import Prepare
from robustscanner_jax.preprocessing import Preprocessing

SECONDS = 8.0


def images_per_second(
    source: str, workers: int, batch: int, augment: float, variants: int
) -> float:
    """Returns the rate once every worker has delivered its first batches."""
    batches = iter(
        training_batches(
            [open_named(source)],
            [1.0],
            prepare=Prepare(
                charset=Charset.of(DICT90),
                rule=Preprocessing(),
                max_len=30,
                augment_strength=augment,
                variants=variants,
            ),
            batch_size=batch,
            seed=0,
            num_workers=workers,
        )
    )
    for _ in range(3 * max(workers, 1)):
        next(batches)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        next(batches)
        count += batch
    return count / (time.perf_counter() - start)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", default="0,2")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--augment", type=float, default=0.0)
    parser.add_argument("--variants", type=int, default=1)
    parser.add_argument("sources", nargs="+", metavar="SOURCE")
    args = parser.parse_args()
    print("| source | workers | img/s |\n|---|---:|---:|")
    for source in args.sources:
        for workers in map(int, args.workers.split(",")):
            rate = images_per_second(
                source, workers, args.batch, args.augment, args.variants
            )
            print(f"| {source} | {workers} | {rate:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
