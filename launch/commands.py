"""What the launchers share: commands that are printed or run, and checked names."""

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

MAIN = "robustscanner_jax.main"  # the module that all of them run
# Of clouds and clusters alike: letters, digits and dashes, at most 63.
NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
# A wait for capacity takes hours, in which a tool loses its network for a moment.
FAILURES_IN_A_ROW = 5


class LaunchError(Exception):
    """Why nothing was created, or which command failed, in one sentence."""


class Commands:
    """Runs commands of another tool, or prints them.

    Args:
      dry_run: print alone.
    """

    def __init__(self, *, dry_run: bool):
        self.dry_run = dry_run

    def run(self, command: Sequence[str], *, input: str | None = None) -> None:
        """Prints the command and runs it; with a dry run prints it and its input.

        Raises:
          LaunchError: the tool is not installed, or the command fails.
        """
        print("+", shlex.join(command), flush=True)
        if self.dry_run:
            if input is not None:
                print(input, end="", flush=True)
            return
        if shutil.which(command[0]) is None:
            raise LaunchError(f"{command[0]}: not found; install it, or use --dry-run")
        done = subprocess.run(command, input=input, text=True)
        if done.returncode:
            raise LaunchError(
                f"{shlex.join(command[:6])} ...: ended with status {done.returncode}"
            )

    def wait_for(
        self,
        command: Sequence[str],
        *,
        ready: str,
        failed: Sequence[str],
        seconds: float = 30,
    ) -> None:
        """Asks again and again until the command prints `ready`.

        Args:
          command: prints a state.
          ready: the state that is waited for.
          failed: states that never become ready.
          seconds: between two questions.

        Raises:
          LaunchError: the state is one of `failed`, or the command has failed
            `FAILURES_IN_A_ROW` times in a row.
        """
        print("+", shlex.join(command), f"# until {ready}", flush=True)
        failures = 0
        while not self.dry_run:
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            state = "" if done.returncode else done.stdout.strip()
            if state == ready:
                return
            failures = failures + 1 if done.returncode else 0
            if failures == FAILURES_IN_A_ROW or state in failed:
                raise LaunchError(
                    f"{shlex.join(command[:6])} ...: expected {ready}, got "
                    f"{state or f'status {done.returncode}, {failures} times in a row'}"
                )
            time.sleep(seconds)


def check_name(name: str, option: str) -> None:
    """Raises `LaunchError` for a name that clouds and clusters refuse."""
    if not NAME.fullmatch(name):
        raise LaunchError(
            f"{option}: expected at most 63 of a-z, 0-9 and -, starting with a letter, "
            f"got {name!r}"
        )


def check_bucket(name: str) -> None:
    """Raises `LaunchError` for what cannot be a bucket of Google Cloud Storage."""
    if not BUCKET.fullmatch(name):
        raise LaunchError(
            "--bucket: expected 3 to 63 of a-z, 0-9, -, _ and ., none of the marks at "
            f"an end, got {name!r}"
        )


def check_arguments(arguments: Sequence[str]) -> None:
    """Raises `LaunchError` unless the flags of the main program can train.

    They need a config, and a run folder that survives the machines: each once, and
    with two dashes, so that there is no doubt which one counts.
    """
    given = [a.partition("=")[0] for a in arguments if "=" in a]
    wrong = [
        f"{flag}=..."
        for flag in ("--config", "--workdir")
        if [g for g in given if g.lstrip("-") == flag[2:]] != [flag]
    ]
    if wrong:
        raise LaunchError(
            f"after --: expected flags of robustscanner_jax.main with "
            f"{' and '.join(wrong)} once, got {list(arguments)}"
        )


def workdir_of(arguments: Sequence[str]) -> str:
    """Returns the run folder of flags that `check_arguments` let pass."""
    [workdir] = [a.partition("=")[2] for a in arguments if a.startswith("--workdir=")]
    return workdir


def split_arguments(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the launcher's own arguments, and those after `--`."""
    argv = list(argv)
    if "--" not in argv:
        return argv, []
    place = argv.index("--")
    return argv[:place], argv[place + 1 :]


def main_command(arguments: Sequence[str], *, python: str = "python3") -> str:
    """Returns the training command as one line of a shell."""
    return shlex.join([python, "-m", MAIN, *arguments])


def run_launcher(
    parser: argparse.ArgumentParser,
    act: Callable[[argparse.Namespace, Sequence[str]], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parses the command line of a launcher and acts; returns the exit status.

    Args:
      parser: of the launcher's own arguments.
      act: gets them, and those after `--`; its `LaunchError` becomes one sentence.
      argv: without the program's name; None takes the process's own.
    """
    own, arguments = split_arguments(sys.argv[1:] if argv is None else argv)
    options = parser.parse_args(own)
    try:
        act(options, arguments)
    except LaunchError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    return 0
