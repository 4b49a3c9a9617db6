"""What more accelerators bring, on paper: compute, gradients and data.

python -m benchmarks.scaling
python -m benchmarks.scaling --intra=900 --inter=50 --cores=26 --render=400

An update takes the longest of three things that go on at the same time, or almost:

    compute     the measured step of one accelerator at its share of the batch
    gradients   a ring all-reduce inside each machine, then one between machines, with
                the latency of its hops; `--overlap` of it hides behind the backward
                pass
    data        rows that the cores beside an accelerator render or read

Measured: step and rendering. Bandwidths and latencies are data-sheet figures that the
arguments replace. Nothing here was run on several machines.
"""

import argparse
import dataclasses
import math
from collections.abc import Sequence

PARAMETERS = 47_979_229  # of the base network, 93 outputs
BYTES = 4  # gradients travel in float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """One kind of machine, and the measured update on one of its accelerators.

    Attributes:
      step: seconds of an update of `batch` rows, on one accelerator.
      batch: rows of that update, per accelerator.
      per_host: accelerators of one machine.
      intra: gigabytes a second, one direction, between accelerators of a machine.
      inter: gigabits a second of network for each accelerator.
      hop: seconds of latency between two accelerators that are not on one machine.
      cores: CPU cores beside each accelerator.
      render: rows a second that one core makes ready.
      overlap: share of the all-reduce that can hide behind the backward pass.
    """

    step: float = 0.0523
    batch: int = 256
    per_host: int = 8
    intra: float = 450.0
    inter: float = 50.0
    hop: float = 10e-6
    cores: int = 16
    render: float = 380.0
    overlap: float = 0.5


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a number of accelerators does.

    Attributes:
      accelerators: how many.
      images: a second, over all of them.
      efficiency: `images` against as many times one accelerator's compute.
      exposed: seconds an update of the all-reduce that hide behind nothing.
      all_reduce: seconds of the whole all-reduce.
      limit: what holds it back: "compute", "gradients" or "data".
    """

    accelerators: int
    images: float
    efficiency: float
    exposed: float
    all_reduce: float
    limit: str


def all_reduce_seconds(machine: Machine, accelerators: int) -> float:
    """Returns how long the sum of all gradients takes, ring by ring.

    Inside a machine first, then between machines, where every accelerator sends its
    own share of the gradients: the network of all of them works at the same time.
    """
    volume = PARAMETERS * BYTES
    inside = min(accelerators, machine.per_host)
    hosts = math.ceil(accelerators / machine.per_host)
    seconds = 2 * (inside - 1) / inside * volume / (machine.intra * 1e9)
    if hosts > 1:
        share = volume / inside
        seconds += 2 * (hosts - 1) / hosts * share / (machine.inter * 1e9 / 8)
        seconds += 2 * (hosts - 1) * machine.hop
    return seconds


def predict(
    machine: Machine, accelerators: int, *, rendered: bool = True, variants: int = 1
) -> Prediction:
    """Returns images a second at the measured batch on each accelerator.

    Args:
      machine: of which kind they are.
      accelerators: how many.
      rendered: whether the cores beside them make every row.
      variants: rows made of each rendered word (`config.data.variants`), which lets
        the cores bring that many more.
    """
    whole = all_reduce_seconds(machine, accelerators) if accelerators > 1 else 0.0
    # Two thirds of a step are the backward pass, which the sum can hide behind.
    hidden = min(machine.overlap * whole, machine.step * 2 / 3)
    exposed = whole - hidden
    device = machine.step + exposed
    data = machine.batch / (machine.cores * machine.render * variants)
    seconds = max(device, data) if rendered else device
    limit = "data" if rendered and data > device else "compute"
    if limit == "compute" and exposed > 0.1 * machine.step:
        limit = "gradients"
    images = accelerators * machine.batch / seconds
    alone = accelerators * machine.batch / machine.step
    return Prediction(accelerators, images, images / alone, exposed, whole, limit)


def table(machine: Machine, counts: Sequence[int], **options) -> str:
    """Returns a Markdown table, a row for each number of accelerators."""
    lines = [
        "| accelerators | global batch | all-reduce ms | images/s | efficiency "
        "| limit |",
        "|---:|---:|---:|---:|---:|---|",
    ]
    for count in counts:
        found = predict(machine, count, **options)
        lines.append(
            f"| {count} | {count * machine.batch:,} | {found.all_reduce * 1e3:.1f} | "
            f"{found.images:,.0f} | {found.efficiency:.0%} | {found.limit} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables of docs/scaling.md."""
    parser = argparse.ArgumentParser(description="Scaling on paper.")
    for field in dataclasses.fields(Machine):
        kind = type(field.default)
        parser.add_argument(f"--{field.name}", type=kind, default=field.default)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 8, 64, 256])
    options = vars(parser.parse_args(argv))
    counts = options.pop("counts")
    machine = Machine(**options)
    print("Rows read from prepared files, fast enough:\n")
    print(table(machine, counts, rendered=False))
    print(f"\nEvery row rendered by {machine.cores} cores an accelerator:\n")
    print(table(machine, counts))
    print(f"\nThe same with {max(machine.cores // 8, 1)} cores an accelerator:\n")
    few = dataclasses.replace(machine, cores=max(machine.cores // 8, 1))
    print(table(few, counts))
    print(
        "\nPrepared files again, over 12.5 Gbit/s an accelerator and nothing hidden:\n"
    )
    slow = dataclasses.replace(machine, inter=12.5, overlap=0.0)
    print(table(slow, counts, rendered=False))


if __name__ == "__main__":
    main()
