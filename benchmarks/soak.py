"""Does a long run keep its memory, its files and its compiled code?

Trains a nano network on words rendered on the fly, with evaluations and checkpoints on
the way, and watches the process from outside.

Run:    python -m benchmarks.soak --minutes=20 --workers=2
Prints: resident memory, open files, threads and compilations, and by how much their
        least values grew from the second quarter to the last; exit status 1 where they
        did.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

# What the allocator may move without a leak, in all.
MEMORY_SLACK = 0.02
FLAGS = (
    "--config=configs/quickstart.py",
    "--config.data.store_rendered=False",
    "--config.train.steps=10000000",
    "--config.train.schedule=constant",
    "--config.train.evaluate_every=200",
    "--config.train.save_every=50",
    "--config.train.log_every=10",
    "--config.data.evaluate=('held:rendered:easy?seed=2&count=256&split=heldout',)",
)


class Sample(NamedTuple):
    """What one look at the process shows."""

    minutes: float
    resident_mb: float  # of the process and its workers
    open_files: int
    threads: int
    processes: int
    updates: int
    compilations: int


def family(pid: int) -> list[Path]:
    """Returns the /proc folders of a process and its descendants."""
    found = [Path(f"/proc/{pid}")]
    for task in (found[0] / "task").glob("*/children"):
        for child in task.read_text().split():
            found += family(int(child))
    return found


def look(pid: int, workdir: Path, began: float) -> Sample:
    """Returns a sample of the process, its children and its log."""
    members = family(pid)
    pages = sum(int((m / "statm").read_text().split()[1]) for m in members)
    log = workdir / "metrics.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    last = next((x for x in map(json.loads, reversed(lines)) if "loss" in x), {})
    return Sample(
        minutes=(time.monotonic() - began) / 60,
        resident_mb=pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        open_files=sum(len(list((m / "fd").iterdir())) for m in members),
        threads=sum(len(list((m / "task").iterdir())) for m in members),
        processes=len(members),
        updates=int(last.get("step", 0)),
        compilations=int(last.get("compilations", 0)),
    )


def soak(workdir: Path, *, minutes: float, workers: int, every: float) -> list[Sample]:
    """Trains for so long and returns a sample every so many seconds.

    Raises:
      RuntimeError: the run ended by itself.
    """
    command = [sys.executable, "-m", "robustscanner_jax.main", *FLAGS]
    command += [f"--workdir={workdir}", f"--config.data.num_workers={workers}"]
    began, samples = time.monotonic(), []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            while time.monotonic() - began < 60 * minutes:
                time.sleep(every)
                if process.poll() is not None:
                    raise RuntimeError(f"ended with status {process.returncode}")
                try:
                    samples.append(look(process.pid, workdir, began))
                except (FileNotFoundError, json.JSONDecodeError):
                    continue  # a process that just ended, a line that is half written
                print(row(samples[-1]), flush=True)
        finally:
            process.terminate()
    return samples


def row(sample: Sample) -> str:
    """Returns a line of the table."""
    cells = [f"{x:,.1f}" if isinstance(x, float) else f"{x:,}" for x in sample]
    return f"| {' | '.join(cells)} |"


def grown(samples: list[Sample]) -> dict[str, float]:
    """Returns by how much each measure grew from the second quarter to the last.

    The least of each quarter is compared, what the process never gives back: memory
    and open files come and go with every checkpoint. Memory relative, the rest as
    differences.
    """
    quarter = len(samples) // 4
    before, after = samples[quarter : 2 * quarter], samples[-quarter:]

    def least(part: list[Sample], name: str) -> float:
        return min(getattr(sample, name) for sample in part)

    counts = ("open_files", "threads", "processes", "compilations")
    memory = least(after, "resident_mb") / least(before, "resident_mb") - 1
    return {"resident_mb": memory} | {
        name: least(after, name) - least(before, name) for name in counts
    }


def main() -> int:
    """Runs and judges."""
    parser = argparse.ArgumentParser(description="A long run, watched.")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--every", type=float, default=10, help="seconds a sample")
    options = parser.parse_args()
    print("| minute | resident MB | files | threads | processes | updates | compiled |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        samples = soak(
            Path(folder) / "run",
            minutes=options.minutes,
            workers=options.workers,
            every=options.every,
        )
    if len(samples) < 8:
        sys.exit(
            f"expected at least 8 samples, got {len(samples)}: take more --minutes"
        )
    growth = grown(samples)
    memory = growth.pop("resident_mb")
    counts = ", ".join(f"{name} {value:+.0f}" for name, value in growth.items())
    print(f"resident memory {memory:+.1%}, {counts}")
    return int(memory > MEMORY_SLACK or any(value > 0 for value in growth.values()))


if __name__ == "__main__":
    sys.exit(main())
