"""A Cloud TPU pod: create, install, start, follow, stop.

python -m launch.tpu_pod run --name=words --zone=us-east5-b --type=v5litepod-64 \
    --version=v2-alpha-tpuv5-lite --repository=https://HOST/robustscanner.git \
    -- --config=configs/base.py --workdir=/mnt/shared/runs/base

`run` is create, install and start; each is an action of its own as well. `--queued`
asks for capacity and waits for it. `--spot` takes machines that can be taken back: the
run saves on the way out, and after `delete` the same `run` goes on. Everything is
checked before anything is created, and `--dry-run` prints the commands.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence

from launch.commands import (
    MAIN,
    Commands,
    LaunchError,
    check_arguments,
    check_name,
    main_command,
    run_launcher,
    workdir_of,
)
from robustscanner_jax.distributed import AUTO, COORDINATOR

ACTIONS = ("run", "create", "install", "start", "logs", "stop", "delete")
FOLDER = "robustscanner-jax"  # below the home folder of every worker
LOG = "robustscanner.log"
PID = "robustscanner.pid"
# A missing TPU is an error; with JAX's own choice the CPU would train instead.
PLATFORMS = "tpu,cpu"
FAMILIES = ("v2-", "v3-", "v4-", "v5litepod-", "v5p-", "v6e-")
# The machines' own may be older: those of Ubuntu 22.04 have 3.10.
PYTHON = ">=3.11,<3.13"


def check(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Raises `LaunchError` for what Cloud TPU, or training, would refuse later."""
    check_name(options.name, "--name")
    if not options.zone.count("-") == 2:
        raise LaunchError(
            f"--zone: expected a zone such as us-east5-b, got {options.zone!r}"
        )
    creates = options.action in ("run", "create")
    if creates:
        family, _, chips = options.type.rpartition("-")
        if f"{family}-" not in FAMILIES or not chips.isdecimal():
            raise LaunchError(
                f"--type: expected one of {', '.join(FAMILIES)} with a number, such as "
                f"v5litepod-64, got {options.type!r}"
            )
        if not options.version:
            raise LaunchError("--version: expected a TPU software version")
    if options.action in ("run", "install") and not options.repository:
        raise LaunchError("--repository: expected what git clone takes")
    if options.action in ("run", "start"):
        check_arguments(arguments)
        workdir = workdir_of(arguments)
        if not workdir.startswith("/"):
            raise LaunchError(
                "--workdir: expected an absolute path of a mount that all workers "
                f"share, got {workdir!r}"
            )
    elif arguments:
        raise LaunchError(f"{options.action} takes nothing after --")


def create(options: argparse.Namespace) -> list[list[str]]:
    """Returns the commands that make the pod, or ask for it and wait."""
    place = [f"--zone={options.zone}", *_project(options)]
    kind = [
        f"--accelerator-type={options.type}",
        f"{'--runtime-version' if options.queued else '--version'}={options.version}",
    ]
    spot = ["--spot"] if options.spot else []
    tpu = ["gcloud", "compute", "tpus"]
    if not options.queued:
        return [[*tpu, "tpu-vm", "create", options.name, *place, *kind, *spot]]
    queue = [*tpu, "queued-resources"]
    node = [f"--node-id={options.name}"]
    return [[*queue, "create", options.name, *node, *place, *kind, *spot]]


def _project(options: argparse.Namespace) -> list[str]:
    return [f"--project={options.project}"] if options.project else []


def on_workers(
    options: argparse.Namespace, line: str, *, worker: str = "all"
) -> list[str]:
    """Returns the command that runs a line of shell on the workers."""
    return [
        *("gcloud", "compute", "tpus", "tpu-vm", "ssh", options.name),
        f"--zone={options.zone}",
        *_project(options),
        f"--worker={worker}",
        f"--command={line}",
    ]


def install_line(options: argparse.Namespace) -> str:
    """Returns the shell line that installs the program on a worker, or moves it.

    `uv` brings a Python where the machine has none of those that the program runs on.
    The revision is what `--repository` has under this name now, also where the worker
    had it before and it was moved since. The commit is printed.
    """
    revision = shlex.quote(f"{options.revision}^{{commit}}")
    branch = shlex.quote(f"refs/remotes/origin/{options.revision}^{{commit}}")
    return " && ".join(
        [
            f"(test -d {FOLDER} || git clone -q {shlex.quote(options.repository)} "
            f"{FOLDER})",
            f"cd {FOLDER}",
            f"git remote set-url origin {shlex.quote(options.repository)}",
            "git fetch -q --prune --tags --force origin",
            f"commit=$(git rev-parse -q --verify {branch} || "
            f"git rev-parse --verify {revision})",
            'git checkout -q --detach "$commit"',
            "git rev-parse HEAD",
            # Not `--user`: newer systems refuse that, and this not.
            "python3 -m pip install -q --upgrade --target .uv uv",
            f".uv/bin/uv venv -q --allow-existing --seed --python {shlex.quote(PYTHON)}"
            " .venv",
            ".venv/bin/pip install -q -r requirements.txt 'jax[tpu]'",
        ]
    )


def start_line(arguments: Sequence[str]) -> str:
    """Returns the shell line that starts training on a worker, and comes back.

    It fails while a run that was started before goes on, and adds to the log.
    """
    command = main_command(arguments, python=".venv/bin/python")
    # After a restart of the machine the number may be that of any other program.
    alive = f'grep -qs {MAIN} "/proc/$(cat ~/{PID} 2> /dev/null)/cmdline"'
    variables = f"JAX_PLATFORMS={PLATFORMS} {COORDINATOR}={AUTO}"
    return (
        f"if {alive}; then echo 'a run goes on here: stop it, and start again when it "
        f"has saved and left' >&2; exit 1; fi; "
        f"cd {FOLDER} && {{ {variables} nohup {command} "
        f">> ~/{LOG} 2>&1 < /dev/null & }} && echo $! > ~/{PID}"
    )


def commands(options: argparse.Namespace, arguments: Sequence[str]) -> list[list[str]]:
    """Returns the commands of an action."""
    line = {
        "install": install_line(options),
        "start": start_line(arguments),
        "logs": f"tail -n +1 -F ~/{LOG}",
        "stop": f"kill -TERM $(cat ~/{PID})",
    }
    if options.action == "run":
        steps = [on_workers(options, line[step]) for step in ("install", "start")]
        return [*create(options), *steps]
    if options.action == "create":
        return create(options)
    if options.action == "delete":
        tpu = ["gcloud", "compute", "tpus"]
        place = [f"--zone={options.zone}", *_project(options), "--quiet"]
        if options.queued:
            queue = [*tpu, "queued-resources", "delete", options.name]
            return [[*queue, *place, "--force"]]
        return [[*tpu, "tpu-vm", "delete", options.name, *place]]
    worker = "0" if options.action == "logs" else "all"
    return [on_workers(options, line[options.action], worker=worker)]


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the arguments before `--`."""
    found = argparse.ArgumentParser(
        prog="python -m launch.tpu_pod",
        description="A run on a TPU pod; -- and flags of the main program at the end.",
    )
    found.add_argument("action", choices=ACTIONS)
    found.add_argument("--name", required=True, help="of the pod")
    found.add_argument("--zone", required=True)
    found.add_argument("--project", default="", help="empty: gcloud's own")
    found.add_argument("--type", default="", help="accelerator, such as v5litepod-64")
    found.add_argument("--version", default="", help="TPU software of the machines")
    found.add_argument("--repository", default="", help="what the workers clone")
    found.add_argument("--revision", default="origin/HEAD", help="commit, tag, branch")
    found.add_argument("--queued", action="store_true", help="wait for capacity")
    found.add_argument("--spot", action="store_true", help="cheap, can be taken back")
    found.add_argument("--dry-run", action="store_true", help="print every command")
    return found


def act(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Checks everything, then runs or prints the commands of the action."""
    tool = Commands(dry_run=options.dry_run)
    check(options, arguments)
    planned = commands(options, arguments)
    if options.action in ("run", "create") and options.queued:
        # The machines come when there is capacity: install and start then.
        tool.run(planned[0])
        tool.wait_for(
            [
                *("gcloud", "compute", "tpus", "queued-resources", "describe"),
                options.name,
                f"--zone={options.zone}",
                *_project(options),
                "--format=value(state.state)",
            ],
            ready="ACTIVE",
            failed=("FAILED", "SUSPENDED", "SUSPENDING"),
        )
        planned = planned[1:]
    for command in planned:
        tool.run(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    return run_launcher(parser(), act, argv)


if __name__ == "__main__":
    sys.exit(main())
