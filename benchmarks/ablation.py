"""What each part is worth: the network and its data, one part left out at a time.

Every variant is trained from the start, with every seed, and reads the same benchmarks.

Run:    python -m benchmarks.ablation --config=configs/tiny.py --steps=4000 \
            --seeds=1,2 --output=runs/ablation --benchmark=dev:real/dev.tsv
Prints: accuracy by variant and benchmark, the mean over the seeds and each seed. A run
        that is there already is not repeated, so an interrupted table goes on.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# Flags beyond the config's; {seed} and {count} are filled in.
SOURCE = "--config.data.train=('rendered:{preset}?seed={seed}&count={count}',)"
VARIANTS: dict[str, tuple[str, ...]] = {
    "all parts": (),
    "without the position branch": ("--config.model.use_position=False",),
    "without the context branch": ("--config.model.use_hybrid=False",),
    "without augmentation": ("--config.data.augment=0.0",),
    "without random strings": ("no-random",),
    "16 fonts": ("few-fonts",),
    "without textures": ("no-textures",),
}
COUNT = 20_000_000
RENDERED = (
    "words:rendered:full?seed=2&count=2048&split=heldout",
    "RandText:rendered:randtext?seed=2&count=2000&split=heldout",
)


def flags_of(
    changes: Sequence[str],
    *,
    seed: int,
    preset: str,
    benchmarks: Sequence[str],
    rest: Sequence[str],
) -> list[str]:
    """Returns the flags of one run.

    Args:
      changes: of the variant: a flag, or the preset its words are rendered with.
      seed: of weights, order and words.
      preset: of the words, where the variant names none.
      benchmarks: NAME:SOURCE.
      rest: flags of every run.
    """
    presets = [c for c in changes if not c.startswith("--")] or [preset]
    sets = ",".join(repr(b) for b in benchmarks)
    return [
        *rest,
        f"--config.seed={seed}",
        SOURCE.format(preset=presets[0], seed=seed, count=COUNT),
        f"--config.data.evaluate=({sets},)",
        *(c for c in changes if c.startswith("--")),
    ]


def train(workdir: Path, flags: Sequence[str]) -> None:
    """Runs one training unless it is there; leaves where it was another one."""
    asked, note = "\n".join(flags) + "\n", workdir / "ablation.txt"
    if note.is_file() and note.read_text(encoding="utf-8") != asked:
        sys.exit(f"{note}: this run was asked for otherwise; use another --output")
    if (workdir / "accuracy.json").is_file():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    note.write_text(asked, encoding="utf-8")
    command = [sys.executable, "-m", "robustscanner_jax.main", f"--workdir={workdir}"]
    subprocess.run([*command, *flags], check=True, stdout=sys.stderr)


def accuracies(workdir: Path) -> dict[str, float]:
    """Returns the accuracy of each benchmark of a finished run, in [0, 1]."""
    table = json.loads((workdir / "accuracy.json").read_text(encoding="utf-8"))
    return {row["name"]: row["accuracy"] for row in table["sets"]}


def row(name: str, runs: Sequence[dict[str, float]]) -> str:
    """Returns a line of the table: mean over the runs, and each of them."""
    cells = []
    for benchmark in runs[0]:
        values = [100 * run[benchmark] for run in runs]
        each = ", ".join(f"{value:.1f}" for value in values)
        cells.append(f"{np.mean(values):.1f} ({each})")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Trains what is not there yet, and prints the table."""
    parser = argparse.ArgumentParser(description="One part left out at a time.")
    add = parser.add_argument
    add("--config", default="configs/tiny.py", help="what is varied")
    add("--steps", type=int, required=True, help="updates of each run")
    add("--seeds", default="1,2", help="runs of each variant")
    add("--output", type=Path, required=True, help="folder of the run folders")
    add("--preset", default="full", help="of the rendered words")
    add("--benchmark", action="append", default=[], help="NAME:SOURCE, repeatable")
    add("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    add("rest", nargs="*", help="-- and flags of the main program for every run")
    options = parser.parse_args()
    benchmarks = [*RENDERED, *options.benchmark]
    table: dict[str, list[dict[str, float]]] = {}
    for seed in options.seeds.split(","):
        for name in options.only:
            workdir = options.output / f"{name.replace(' ', '-')}-{seed}"
            flags = flags_of(
                VARIANTS[name],
                seed=int(seed),
                preset=options.preset,
                benchmarks=benchmarks,
                rest=[
                    f"--config.train.steps={options.steps}",
                    # At the end alone: its table says that the run is finished.
                    f"--config.train.evaluate_every={options.steps}",
                    *options.rest,
                ],
            )
            train(workdir, [f"--config={options.config}", *flags])
            table.setdefault(name, []).append(accuracies(workdir))
    names = list(next(iter(table.values()))[0])
    print(f"| trained | {' | '.join(names)} |")
    print("|---" * (1 + len(names)) + "|")
    for name, runs in table.items():
        print(row(name, runs))


if __name__ == "__main__":
    main()
