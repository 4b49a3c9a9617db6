"""GPU nodes under SLURM: renders the batch script and submits it.

python -m launch.slurm --nodes=8 --gpus-per-node=8 --time=24:00:00 --partition=gpu \
    -- --config=configs/base.py --workdir=/shared/runs/base

One task a GPU; JAX finds the others through SLURM. Two minutes before the time is over,
or when SLURM preempts the job with some time to leave, the tasks get SIGTERM, save and
leave with 143. The job goes back into the queue, where the same command goes on:
`--restarts` times at most, and never after an error. `--dry-run` prints the script.
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
STOPPED = 143  # what tasks leave with after SIGTERM; one that it kills gives the same
# Not "cuda,cpu": JAX then goes on with the CPU alone where it sees no GPU.
PLATFORMS = "cuda"

# The shell alone is told that the time is nearly over, and notes it: 143 may also come
# from tasks that srun ended because another had failed. It tells the tasks by scancel,
# as srun answers a SIGTERM of its own by killing them at once. When SLURM preempts the
# job it tells the tasks itself, and the shell sees it by a new PreemptTime.
SCRIPT = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node={gpus}
#SBATCH --gpus-per-node={gpus}
#SBATCH --cpus-per-task={cpus}
#SBATCH --time={time}
#SBATCH --signal=B:USR1@{save}
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={name}-%j.log
{extra}
told=
trap 'told=yes; trap "" USR1; scancel --signal=TERM "$SLURM_JOB_ID"' USR1
preempt_time() {{
  scontrol show job "$SLURM_JOB_ID" | grep -o 'PreemptTime=[0-9][^ ]*'
}}
before=$(preempt_time)
export JAX_PLATFORMS={platforms}
srun --label --kill-on-bad-exit=1 --cpus-per-task={cpus} {command} &
step=$!
wait "$step"
status=$?
if [ "$status" -eq 138 ]; then  # the trap ended the waiting, srun goes on
  wait "$step"
  status=$?
fi
if [ "$status" -eq {stopped} ]; then
  now=$(preempt_time)
  if [ "$now" ] && [ "$now" != "$before" ]; then told=yes; fi
  if [ "$told" ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; then
    scontrol requeue "$SLURM_JOB_ID"
  elif [ "$told" ]; then
    echo "not requeued: restarted {restarts} times before (--restarts)" >&2
  fi
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
    if options.restarts < 0:
        raise LaunchError(f"--restarts: expected 0 or more, got {options.restarts}")
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
        platforms=PLATFORMS,
        stopped=STOPPED,
        restarts=options.restarts,
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
    found.add_argument("--restarts", type=int, default=100, help="out of time")
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
