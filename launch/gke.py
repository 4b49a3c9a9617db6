"""GKE: renders a JobSet for TPU or GPU and gives it to kubectl.

python -m launch.gke tpu --name=words --image=IMAGE --bucket=BUCKET \
    --accelerator=tpu-v5-lite-podslice --topology=4x8 --chips=4 \
    -- --config=configs/base.py --workdir=/bucket/runs/base
python -m launch.gke gpu --name=words --image=IMAGE --bucket=BUCKET \
    --accelerator=nvidia-h100-80gb --hosts=8 --chips=8 \
    -- --config=configs/base.py --workdir=/bucket/runs/base

`launch/gke/Dockerfile` makes the image. The cluster needs the JobSet controller. A run
that is preempted, or fails for any other reason, starts again, `--restarts` times at
most, and goes on where it was. `--dry-run` prints the manifest.
"""

import argparse
import json
import math
import re
import string
import sys
from collections.abc import Sequence
from pathlib import Path

from launch.commands import (
    MAIN,
    Commands,
    LaunchError,
    check_arguments,
    check_bucket,
    check_name,
    run_launcher,
    workdir_of,
)

TEMPLATES = Path(__file__).resolve().parent / "gke"
TOPOLOGY = re.compile(r"\d+x\d+(x\d+)?")
LABEL = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")
IMAGE = re.compile(r"[\w.:/@-]+")


def num_hosts(options: argparse.Namespace) -> int:
    """Returns how many machines there are: of a TPU, what its topology needs.

    Raises:
      LaunchError: the topology is none, or its chips do not fill the machines.
    """
    if options.kind == "gpu":
        return options.hosts
    if not TOPOLOGY.fullmatch(options.topology):
        raise LaunchError(
            f"--topology: expected a shape such as 4x8, got {options.topology!r}"
        )
    chips = math.prod(map(int, options.topology.split("x")))
    if chips < 1 or chips % options.chips:
        raise LaunchError(
            f"--topology {options.topology} has {chips} chips: expected a multiple of "
            f"the {options.chips} of one machine (--chips)"
        )
    return chips // options.chips


def check(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Raises `LaunchError` for what the cluster, or training, would refuse later."""
    check_name(options.name, "--name")
    # Pod names add "-workers-0-NUMBER" and a random part.
    if len(options.name) > 40:
        raise LaunchError(f"--name: expected at most 40 characters, got {options.name}")
    if not IMAGE.fullmatch(options.image):
        raise LaunchError(f"--image: expected a container image, got {options.image!r}")
    if not LABEL.fullmatch(options.accelerator):
        raise LaunchError(
            "--accelerator: expected the cluster's label, such as "
            f"tpu-v5-lite-podslice, got {options.accelerator!r}"
        )
    for option in ("chips", "hosts"):
        if getattr(options, option) < 1:
            raise LaunchError(
                f"--{option}: expected at least 1, got {getattr(options, option)}"
            )
    if options.restarts < 0:
        raise LaunchError(f"--restarts: expected 0 or more, got {options.restarts}")
    check_arguments(arguments)
    check_bucket(options.bucket)
    if not workdir_of(arguments).startswith("/bucket/"):
        raise LaunchError(
            "--workdir: expected a folder below /bucket, where --bucket is mounted, as "
            f"a pod's own disk goes with it, got {workdir_of(arguments)!r}"
        )


def manifest(options: argparse.Namespace, arguments: Sequence[str]) -> str:
    """Returns the JobSet as YAML."""
    template = (TEMPLATES / f"{options.kind}.yaml").read_text(encoding="utf-8")
    command = ["python3", "-m", MAIN, *arguments]
    # `$(X)` is Kubernetes' own for a variable. What is JSON is YAML as well; without
    # quotes a bucket called 123 would be a number.
    escaped = [word.replace("$(", "$$(") for word in command]
    return string.Template(template).substitute(
        name=options.name,
        image=options.image,
        bucket=json.dumps(options.bucket),
        accelerator=options.accelerator,
        topology=options.topology,
        hosts=num_hosts(options),
        chips=options.chips,
        restarts=options.restarts,
        spot=str(options.spot).lower(),
        command=json.dumps(escaped),
    )


def without_spot(text: str) -> str:
    """Returns the manifest without the label that only spot machines have."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if 'gke-spot: "false"' not in line)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the arguments before `--`."""
    found = argparse.ArgumentParser(
        prog="python -m launch.gke",
        description="A run on GKE; -- and flags of the main program at the end.",
    )
    found.add_argument("kind", choices=("tpu", "gpu"))
    found.add_argument("--name", required=True, help="of the JobSet")
    found.add_argument("--image", required=True)
    found.add_argument("--bucket", required=True, help="mounted as /bucket")
    found.add_argument("--accelerator", required=True, help="the node label")
    found.add_argument("--topology", default="", help="tpu: of the slice, as 4x8")
    found.add_argument("--hosts", type=int, default=1, help="gpu: nodes")
    found.add_argument(
        "--chips", type=int, default=4, help="TPU chips or GPUs a machine"
    )
    found.add_argument(
        "--restarts",
        type=int,
        default=20,
        help="after a preemption, or any other failure",
    )
    found.add_argument("--spot", action="store_true", help="cheap, can be taken back")
    found.add_argument("--dry-run", action="store_true", help="print the manifest")
    return found


def act(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Checks everything, then applies or prints the manifest."""
    check(options, arguments)
    text = without_spot(manifest(options, arguments))
    Commands(dry_run=options.dry_run).run(["kubectl", "apply", "-f", "-"], input=text)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    return run_launcher(parser(), act, argv)


if __name__ == "__main__":
    sys.exit(main())
