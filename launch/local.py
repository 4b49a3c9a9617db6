"""Several processes on one machine.

python -m launch.local --processes=4 -- --config=configs/small.py --workdir=RUN

Everything after `--` goes to `python -m robustscanner_jax.main`. One process drives all
accelerators of a machine well, so this is for trying what several machines do, and for
machines where one process an accelerator is wanted.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO

from robustscanner_jax.distributed import COORDINATOR, NUM_PROCESSES, PROCESS_ID

# For the others to leave once one has failed, before they are killed.
GRACE_SECONDS = 15
POLL_SECONDS = 0.1


def free_port() -> int:
    """Returns a port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def environments(
    processes: int, *, accelerators: int = 1, base: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """Returns the environment of each process.

    Args:
      processes: how many.
      accelerators: GPUs that each of them sees; CPU and TPU take no notice.
      base: what they have in common; by default this process's environment.
    """
    coordinator = f"127.0.0.1:{free_port()}"
    shared = dict(os.environ if base is None else base)
    return [
        {
            **shared,
            COORDINATOR: coordinator,
            NUM_PROCESSES: str(processes),
            PROCESS_ID: str(i),
            "JAX_LOCAL_DEVICE_IDS": ",".join(
                str(i * accelerators + k) for k in range(accelerators)
            ),
        }
        for i in range(processes)
    ]


def start(
    command: Sequence[str], processes: int, *, accelerators: int = 1
) -> list[subprocess.Popen[str]]:
    """Starts the command once a process; stdout and stderr of each are one pipe."""
    return [
        subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for environment in environments(processes, accelerators=accelerators)
    ]


def exit_status(returncode: int) -> int:
    """Returns what a shell shows: 128 and the number of the signal that ended it."""
    return 128 - returncode if returncode < 0 else returncode


def wait(running: Sequence[subprocess.Popen[str]]) -> int:
    """Returns when all have ended: 0, or the status of the first that failed.

    Once one has failed the others get SIGTERM, and SIGKILL after `GRACE_SECONDS`.
    """
    status, deadline = 0, None
    while True:
        codes = [process.poll() for process in running]
        failed = [(i, code) for i, code in enumerate(codes) if code]
        if failed and deadline is None:
            number, code = failed[0]
            status = exit_status(code)
            print(f"process {number} ended with status {status}", file=sys.stderr)
            signal_all(running, signal.SIGTERM)
            deadline = time.monotonic() + GRACE_SECONDS
        if None not in codes:
            return status
        if deadline is not None and time.monotonic() > deadline:
            signal_all(running, signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def signal_all(running: Sequence[subprocess.Popen[str]], number: int) -> None:
    """Sends a signal to those that still run."""
    for process in running:
        if process.poll() is None:
            process.send_signal(number)


def _copy(stream: IO[str], prefix: str, lock: threading.Lock) -> None:
    with stream:
        for line in stream:
            with lock:
                sys.stdout.write(prefix + line.rstrip("\n") + "\n")
                sys.stdout.flush()


def run(command: Sequence[str], processes: int, *, accelerators: int = 1) -> int:
    """Runs the command once a process, its lines behind `[number]`; returns the status.

    SIGTERM and Ctrl-C go to every process; a second one kills them.
    """
    running = start(command, processes, accelerators=accelerators)
    lock, asked = threading.Lock(), False
    readers = [
        threading.Thread(target=_copy, args=(p.stdout, f"[{i}] ", lock), daemon=True)
        for i, p in enumerate(running)
    ]
    for reader in readers:
        reader.start()

    def forward(number: int, frame: object) -> None:
        nonlocal asked
        del number, frame
        signal_all(running, signal.SIGKILL if asked else signal.SIGTERM)
        asked = True

    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, forward) for number in numbers}
    try:
        status = wait(running)
    finally:
        signal_all(running, signal.SIGKILL)
        for number, handler in before.items():
            signal.signal(number, handler)
    for reader in readers:
        # A grandchild may hold the pipe open.
        reader.join(timeout=5)
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the arguments and runs."""
    parser = argparse.ArgumentParser(
        prog="python -m launch.local", description="Several processes here."
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--accelerators", type=int, default=1, help="GPUs that each process sees"
    )
    parser.add_argument("arguments", nargs="+", help="-- and flags of the main program")
    options = parser.parse_args(argv)
    if options.processes < 1 or options.accelerators < 1:
        parser.error("--processes and --accelerators: expected at least 1")
    command = [sys.executable, "-m", "robustscanner_jax.main", *options.arguments]
    return run(command, options.processes, accelerators=options.accelerators)


if __name__ == "__main__":
    sys.exit(main())
