"""GPU nodes under SLURM: renders the batch script and submits it.

python -m launch.slurm --nodes=8 --gpus-per-node=8 --time=24:00:00 --partition=gpu \
    -- --config=configs/base.py --workdir=/shared/runs/base

One task a GPU; JAX finds the others through SLURM. Two minutes before the time is over
the tasks get SIGTERM, save and leave with 143, and the job goes back into the queue,
where the same command goes on. `--dry-run` prints the script.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Sequence

from launch.commands import (
    Commands,
    LaunchError,
    check_arguments,
    check_name,
    main_command,
    run_launcher,
    workdir_of,
)

# For saving, before the time is over: a checkpoint of 600 MB on a slow file system.
SAVE_SECONDS = 120
# Without seconds or days SLURM reads minutes first: 24:00 would be 24 minutes.
TIME = re.compile(r"\d+:[0-5]\d:[0-5]\d|\d+-\d{1,2}(:[0-5]\d){0,2}")
PREEMPTED = 143

SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={gpus}
#SBATCH --gpus-per-node={gpus}
#SBATCH --cpus-per-task={cpus}
#SBATCH --time={time}
#SBATCH --signal=TERM@{save}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={name}-%j.log
{extra}
srun --label --kill-on-bad-exit=1 {command}
status=$?
if [ "$status" -eq {preempted} ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


def check(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Raises `LaunchError` for what SLURM, or training, would refuse later."""
    check_name(options.name, "--name")
    for option in ("nodes", "gpus_per_node", "cpus_per_task"):
        if getattr(options, option) < 1:
            raise LaunchError(
                f"--{option.replace('_', '-')}: expected at least 1, got "
                f"{getattr(options, option)}"
            )
    if not TIME.fullmatch(options.time):
        raise LaunchError(
            "--time: expected HOURS:MM:SS or DAYS-HH[:MM[:SS]], such as 120:00:00 or "
            f"5-00, got {options.time!r}"
        )
    check_arguments(arguments)
    if not workdir_of(arguments).startswith("/"):
        raise LaunchError(
            "--workdir: expected an absolute path on a file system that all nodes "
            f"share, got {workdir_of(arguments)!r}"
        )


def script(options: argparse.Namespace, arguments: Sequence[str]) -> str:
    """Returns the batch script."""
    extra = [
        f"#SBATCH --{name}={getattr(options, name)}"
        for name in ("partition", "account")
        if getattr(options, name)
    ]
    return SCRIPT.format(
        name=options.name,
        nodes=options.nodes,
        gpus=options.gpus_per_node,
        cpus=options.cpus_per_task,
        time=options.time,
        save=SAVE_SECONDS,
        extra="\n".join([*extra, f"cd {shlex.quote(options.folder)} || exit 1"]),
        command=main_command(arguments, python=options.python),
        preempted=PREEMPTED,
    )


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the arguments before `--`."""
    found = argparse.ArgumentParser(
        prog="python -m launch.slurm",
        description="A run under SLURM; -- and flags of the main program at the end.",
    )
    found.add_argument("--name", default="robustscanner", help="of the job")
    found.add_argument("--nodes", type=int, default=1)
    found.add_argument("--gpus-per-node", type=int, default=8)
    found.add_argument("--cpus-per-task", type=int, default=8, help="cores a GPU")
    found.add_argument("--time", default="24:00:00")
    found.add_argument("--partition", default="")
    found.add_argument("--account", default="")
    found.add_argument("--folder", default=".", help="of the program, on every node")
    found.add_argument("--python", default=".venv/bin/python")
    found.add_argument("--dry-run", action="store_true", help="print the script")
    return found


def act(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Checks everything, then submits or prints the script."""
    check(options, arguments)
    text = script(options, arguments)
    Commands(dry_run=options.dry_run).run(["sbatch"], input=text)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    return run_launcher(parser(), act, argv)


if __name__ == "__main__":
    sys.exit(main())
