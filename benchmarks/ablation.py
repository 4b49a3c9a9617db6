"""What each part is worth: the network and its data, one part left out at a time.

Every variant is trained from the start, with every seed, and reads the same benchmarks.

Run:    python -m benchmarks.ablation --config=configs/tiny.py --steps=4000 \
            --seeds=1,2 --output=runs/ablation --benchmark=dev:real/dev.tsv
Prints: accuracy by variant and benchmark, the mean over the seeds and each seed. A run
        that is there already is not repeated, so an interrupted table goes on.

--stored=150000 renders so many words of each preset and seed once, and the runs read
them; --together=4 trains so many networks at once on a device that one of them leaves
idle (on a GPU, set XLA_PYTHON_CLIENT_MEM_FRACTION to the share of each; on a CPU every
run keeps to its own share of the cores).

When attention is found in a training from random weights depends on the seed more than
on most of what is left out. `-- --config.train.init_weights=FILE` starts every run from
weights that have found it.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from robustscanner_jax.data.rendered import RenderedSpec


class Variant(NamedTuple):
    """What is left out.

    Attributes:
      flags: of the main program.
      lacks: of the words it is trained on, a key of `Look.words`.
    """

    flags: tuple[str, ...] = ()
    lacks: str = ""


NO_POSITION = "--config.model.use_position=False"
VARIANTS = {
    "all parts": Variant(),
    "without the position branch": Variant((NO_POSITION,)),
    "without the context branch": Variant(("--config.model.use_hybrid=False",)),
    # Variants of a word would then be the same rows.
    "without augmentation": Variant(
        ("--config.data.augment=0.0", "--config.data.variants=1")
    ),
    "without random strings": Variant(lacks="random strings"),
    # The paper's case: trained on words, and then shown strings without context.
    "without random strings and position branch": Variant(
        (NO_POSITION,), lacks="random strings"
    ),
    "16 fonts": Variant(lacks="fonts"),
    "without textures": Variant(lacks="textures"),
}
COUNT = 20_000_000


class Look(NamedTuple):
    """Presets of the generator that belong together.

    Attributes:
      words: trained on, by what is left out of them; "" for nothing.
      benchmarks: (name, preset, count) of spellings that are never trained on.
    """

    words: dict[str, str]
    benchmarks: tuple[tuple[str, str, int], ...]


LOOKS = {
    "full": Look(
        {
            "": "full",
            "random strings": "no-random",
            "fonts": "few-fonts",
            "textures": "no-textures",
        },
        (("words", "full", 2048), ("RandText", "randtext", 2000)),
    ),
    # Short lower-case words in 16 fonts, for a network that a CPU trains in minutes.
    "easy": Look(
        {"": "easy-mixed", "random strings": "easy"},
        (("words", "easy", 2048), ("RandText", "easy-randtext", 2000)),
    ),
}


def source_of(source: str, stored: Path | None) -> str:
    """Returns `rendered:...` as it is, or the folder its words are stored in.

    Args:
      source: see `robustscanner_jax.data.rendered`.
      stored: folder of rendered datasets; this one is made where it is not there.
    """
    if stored is None:
        return source
    return str(RenderedSpec.parse(source).store(stored))


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


def shares_of_cores(together: int) -> list[set[int]]:
    """Returns a share of the cores for each run; empty where they cannot be told.

    With more runs than cores some share one.
    """
    known = hasattr(os, "sched_getaffinity")
    cores = sorted(os.sched_getaffinity(0)) if known else []
    if not cores:
        return [set() for _ in range(together)]
    return [
        set(cores[first::together]) or {cores[first % len(cores)]}
        for first in range(together)
    ]


def take_share(shares: list[set[int]]) -> None:
    """Keeps this thread, and what it starts, to one of the shares, and removes it."""
    if cores := shares.pop():
        os.sched_setaffinity(0, cores)


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


def plan(options: argparse.Namespace) -> dict[str, list[tuple[Path, list[str]]]]:
    """Returns folder and flags of every run, one a seed, by the variant's name."""
    look = LOOKS[options.look]
    stored = options.output / "words" if options.stored else None
    count = options.stored or COUNT
    benchmarks = []
    for name, preset, words in look.benchmarks:
        source = f"rendered:{preset}?seed=2&count={words}&split=heldout"
        benchmarks.append(f"{name}:{source_of(source, stored)}")
    sets = ",".join(repr(b) for b in [*benchmarks, *options.benchmark])
    every = [
        f"--config={options.config}",
        f"--config.train.steps={options.steps}",
        # At the end alone: its table says that the run is finished.
        f"--config.train.evaluate_every={options.steps}",
        *options.rest,
        f"--config.data.evaluate=({sets},)",
        "--config.data.weights=(1.0,)",
    ]
    runs: dict[str, list[tuple[Path, list[str]]]] = {}
    for name in options.only:
        flags, lacks = VARIANTS[name]
        if lacks not in look.words:
            continue
        for seed in map(int, options.seeds.split(",")):
            source = f"rendered:{look.words[lacks]}?seed={seed}&count={count}"
            data = f"--config.data.train=({source_of(source, stored)!r},)"
            workdir = options.output / f"{name.replace(' ', '-')}-{seed}"
            run = workdir, [*every, f"--config.seed={seed}", data, *flags]
            runs.setdefault(name, []).append(run)
    return runs


def main() -> None:
    """Trains what is not there yet, and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config", default="configs/tiny.py", help="what is varied")
    add("--steps", type=int, required=True, help="updates of each run")
    add("--seeds", default="1,2", help="runs of each variant")
    add("--output", type=Path, required=True, help="folder of the run folders")
    add("--look", default="full", choices=list(LOOKS), help="of the rendered words")
    add("--stored", type=int, default=0, help="words rendered to disk first; 0: none")
    add("--together", type=int, default=1, help="runs at the same time")
    add("--benchmark", action="append", default=[], help="NAME:SOURCE, repeatable")
    add("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS),
        help="variants; one that the look does not have is left out")  # fmt: skip
    add("rest", nargs="*", help="-- and flags of the main program for every run")
    runs = plan(options := parser.parse_args())
    if not runs:
        parser.error(f"--look={options.look} has none of {options.only}")
    together = options.together
    shares = shares_of_cores(together)
    with ThreadPoolExecutor(
        together, initializer=take_share, initargs=(shares,)
    ) as pool:
        # The first seed of every variant before the second of any.
        in_order = itertools.chain.from_iterable(zip(*runs.values(), strict=True))
        list(pool.map(lambda run: train(*run), in_order))
    table = {
        name: [accuracies(workdir) for workdir, _ in of_seeds]
        for name, of_seeds in runs.items()
    }
    names = list(next(iter(table.values()))[0])
    print(f"| trained | {' | '.join(names)} |")
    print("|---" * (1 + len(names)) + "|")
    for name, results in table.items():
        print(row(name, results))


if __name__ == "__main__":
    main()
