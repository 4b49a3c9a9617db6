"""A training step with each way to differentiate convolutions on CPU.

Run: python -m benchmarks.training_factors --width=tiny --size=48x160 --batch=64

XLA's own gradients, against products of float32 tap by tap, against all three passes as
products of bfloat16 (`robustscanner_jax/models/convolution.py`), in turn; random
images. Choose among them in `robustscanner_jax/compute.py`.
"""

import argparse
import statistics

import jax
import jax.numpy as jnp

from benchmarks.decoding import milliseconds
from benchmarks.throughput import make_train
from robustscanner_jax.models.robustscanner import RobustScanner
from robustscanner_jax.preprocessing import Preprocessing

WAYS = {"XLA": None, "float32": jnp.float32, "bfloat16": jnp.bfloat16}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", default="tiny")
    parser.add_argument("--size", default="48x160", help="of the images, HxW pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--max_len", type=int, default=30, help="decoding steps")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    height, width = map(int, args.size.split("x"))
    rule = Preprocessing(height=height, min_width=height, max_width=width)
    steps = {}
    for name, dtype in WAYS.items():
        model = RobustScanner(
            width=args.width, max_len=args.max_len, training_factors=dtype
        )
        steps[name] = make_train(model, args.batch, rule)
        for _ in range(2):  # the first call compiles
            jax.block_until_ready(steps[name]())
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(args.rounds):
        for name, step in steps.items():
            times[name].append(milliseconds(step))
    print(f"{args.width}, {args.size}, batch {args.batch}, {args.max_len} steps, "
          f"{jax.devices()[0].device_kind}, jax {jax.__version__}")  # fmt: skip
    print("| training factors | img/s | median ms | min | max | XLA's time over it |")
    print("|---|---:|---:|---:|---:|---:|")
    for name, values in times.items():
        middle = statistics.median(values)
        pairs = zip(times["XLA"], values, strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs)
        print(f"| {name} | {1e3 * args.batch / middle:.1f} | {middle:.0f} | "
              f"{min(values):.0f} | {max(values):.0f} | {ratio:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
