"""Images per second of training and reading on this machine's device.

Run: python -m benchmarks.throughput train:base:bfloat16:256 read:base:bfloat16:64

Each argument is WHAT:WIDTH:DTYPE:BATCH; WHAT is train (forward, backward, Adam), read
(greedy decoding, a batch whose longest word has 9 characters), read30 (all 30 steps) or
profile (train under the profiler: where the device's time goes). Random images are on
the device already; the input pipeline is measured by `benchmarks.pipeline`.
"""

import argparse
import collections
import functools
import glob
import re
import tempfile
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from robustscanner_jax import partition
from robustscanner_jax.charset import DICT90, Charset
from robustscanner_jax.compute import for_device
from robustscanner_jax.data.pipeline import DEVICE_KEYS, fake_batch
from robustscanner_jax.decoding import greedy
from robustscanner_jax.flops import forward_flops, peak_flops
from robustscanner_jax.models.normalise import normalise
from robustscanner_jax.models.robustscanner import RobustScanner
from robustscanner_jax.optim import make_optimizer
from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.steps import create_state, train_step

# Events that hold the events of kernels, on CPU.
CONTAINERS = ("ThunkExecutor", "SlinkyThreadPool", "while", "call", "conditional")
RULE = Preprocessing()
CHARSET = Charset.of(DICT90)
# The measured part: at least so long, so that a clock tick does not matter.
SECONDS = 3.0


def seconds_per_call(call: Callable[[], object]) -> tuple[float, float]:
    """Returns the mean seconds of a call, and those of the first with compilation."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    first = time.perf_counter() - start
    for _ in range(2):
        jax.block_until_ready(call())
    start, calls = time.perf_counter(), 0
    result = None
    while calls < 3 or time.perf_counter() - start < SECONDS:
        for _ in range(5):  # asynchronous, as in the training loop
            result = call()
        jax.block_until_ready(result)
        calls += 5
    return (time.perf_counter() - start) / calls, first


def make_train(
    model: RobustScanner, batch_size: int, rule: Preprocessing = RULE
) -> Callable[[], object]:
    """Returns a call that applies one update to a state it keeps."""
    mesh = partition.make_mesh()
    tx = make_optimizer(clip_norm=5.0, weight_decay=0.0)
    step = partition.jit_step(
        functools.partial(
            train_step,
            model=model,
            tx=tx,
            mean=rule.mean,
            scale=rule.scale,
            ema_decay=0.0,
        ),
        mesh,
    )
    create = functools.partial(
        create_state,
        jax.random.key(0),
        model=model,
        tx=tx,
        image_size=(rule.height, rule.max_width),
        ema=False,
    )
    state = partition.place_state(create, mesh)
    batch = fake_batch(batch_size, charset=CHARSET, rule=rule, max_len=model.max_len)
    batch = partition.put_batch(batch, DEVICE_KEYS, mesh)
    kept = [state]

    def call():
        kept[0], metrics = step(kept[0], batch, np.float32(1e-4))
        return metrics

    return call


def make_read(model: RobustScanner, batch_size: int) -> Callable[[], object]:
    """Returns a call that reads a batch, running every step of the model."""
    image = jnp.zeros((1, RULE.height, RULE.max_width, 3))
    tokens = jnp.zeros((1, model.max_len), jnp.int32)
    variables = jax.jit(functools.partial(model.init, train=False))(
        jax.random.key(0), image, jnp.full(1, RULE.max_width), tokens
    )
    batch = fake_batch(batch_size, charset=CHARSET, rule=RULE, max_len=model.max_len)
    pixels, width = jnp.asarray(batch["image"]), jnp.asarray(batch["width"])

    @jax.jit
    def read(variables, pixels, width):
        image = normalise(pixels, mean=RULE.mean, scale=RULE.scale, dtype=model.dtype)
        return greedy(model, variables, image, width, all_steps=True)

    return lambda: read(variables, pixels, width)


def run_case(case: str) -> str:
    """Returns one row of the table for WHAT:WIDTH:DTYPE:BATCH."""
    what, width, dtype, batch = case.split(":")
    batch_size = int(batch)
    max_len = 10 if what == "read" else 30
    model = for_device(RobustScanner(width=width, max_len=max_len), dtype)
    if what == "profile":
        return profile(make_train(model, batch_size))
    make = make_train if what == "train" else make_read
    seconds, first = seconds_per_call(make(model, batch_size))
    flops = forward_flops(model, (RULE.height, RULE.max_width))
    flops *= 3 if what == "train" else 1
    rate = batch_size / seconds
    peak = peak_flops(jax.devices()[0])
    mfu = f"{flops * rate / peak / jax.device_count():.1%}" if peak else "-"
    return (
        f"| {what} | {width} | {dtype} | {batch_size} | {rate:,.0f} | "
        f"{1e3 * seconds:.2f} | {flops * rate / 1e12:,.1f} | {mfu} | {first:.0f} |"
    )


def profile(call: Callable[[], object]) -> str:
    """Returns where a step's device time goes, by kind of kernel."""
    for _ in range(3):
        jax.block_until_ready(call())
    steps = 5
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                result = call()
            jax.block_until_ready(result)
        (path,) = glob.glob(f"{folder}/**/*.xplane.pb", recursive=True)
        data = jax.profiler.ProfileData.from_file(path)
    times: collections.defaultdict[str, float] = collections.defaultdict(float)
    counts: collections.Counter[str] = collections.Counter()
    for plane in data.planes:
        for line in plane.lines:
            if not is_work(plane.name, line.name):
                continue
            for event in line.events:
                if event.name.startswith(CONTAINERS):
                    continue
                kind = re.sub(r"[._]?\d+", "", event.name)[:60]
                times[kind] += event.duration_ns / 1e6 / steps
                counts[kind] += 1
    total = sum(times.values())
    rows = sorted(times.items(), key=lambda item: -item[1])[:40]
    lines = [f"device time {total:.2f} ms a step, on CPU of all threads; by name:"]
    lines += [
        f"{ms:9.3f} ms {ms / total:6.1%} {counts[kind] / steps:7.1f}x {kind}"
        for kind, ms in rows
    ]
    return "\n".join(lines)


def is_work(plane: str, line: str) -> bool:
    """Returns whether a line of a profile is of kernels, on whichever device."""
    if "GPU" in plane or "TPU" in plane:
        return "Stream" in line or "XLA Ops" in line
    # Threads of the CPU, which are the device where there is no other.
    return jax.default_backend() == "cpu" and line.startswith("tf_XLA")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", nargs="+", metavar="WHAT:WIDTH:DTYPE:BATCH")
    cases = parser.parse_args().cases
    device = jax.devices()[0]
    print(f"{jax.device_count()} x {device.device_kind}, jax {jax.__version__}, "
          f"numpy {np.__version__}")  # fmt: skip
    print("| what | width | dtype | batch | img/s | ms | TFLOP/s | MFU | compile s |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|")
    for case in cases:
        try:
            print(run_case(case), flush=True)
        except jax.errors.JaxRuntimeError as error:  # out of memory: go on
            print(f"| {case} | {str(error).splitlines()[0][:100]} |", flush=True)


if __name__ == "__main__":
    main()
