"""Several processes that train together: how they find, stop and notice each other.

Nothing here acts in a run of one process. `partition` maps the computation, the same
for any number of processes; this file holds what needs the processes to talk.
"""

import contextlib
import hashlib
import logging
import os
import signal
from collections.abc import Iterator
from types import FrameType

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from robustscanner_jax.signals import StopSignals

logger = logging.getLogger(__name__)

COORDINATOR = "ROBUSTSCANNER_COORDINATOR"  # host:port of process 0, or "auto"
NUM_PROCESSES = "ROBUSTSCANNER_NUM_PROCESSES"
PROCESS_ID = "ROBUSTSCANNER_PROCESS_ID"
AUTO = "auto"

# A dead process is noticed after the first, and one that leaves early does not wait
# longer than the second for the rest: together less than the minute that is promised.
HEARTBEAT_SECONDS = 30
SHUTDOWN_SECONDS = 15
# Machines of a pod come up, and install, minutes apart.
START_SECONDS = 600
# For rendering or evaluating on another process; the dead are noticed long before.
PATIENCE_SECONDS = 24 * 3600
_LOW_BITS = 2**31 - 1


def initialise() -> None:
    """Joins the processes that the environment names; call it before any device use.

    `ROBUSTSCANNER_COORDINATOR` with `_NUM_PROCESSES` and `_PROCESS_ID` names them; the
    value `auto`, a SLURM step of several tasks and, on GKE, a TPU slice of several
    hosts leave it to JAX. Without any of these the process is alone, and nothing
    happens; so a TPU VM outside GKE needs `auto`.

    Raises:
      ValueError: the variables are incomplete or contradict each other, or the other
        processes cannot be reached.
    """
    found = _explicit() if os.environ.get(COORDINATOR, AUTO) != AUTO else None
    if found is None and not _detectable():
        return
    coordinator, count, index = found or (None, None, None)
    # The collectives of CPU processes; accelerators have their own.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            coordinator,
            count,
            index,
            initialization_timeout=START_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        if coordinator is None:
            advice = f"set {COORDINATOR}=HOST:PORT, {NUM_PROCESSES} and {PROCESS_ID}"
            raise ValueError(
                f"JAX found no other processes by itself: {reason}; {advice}"
            ) from error
        raise ValueError(
            f"the processes did not find each other (waits up to {START_SECONDS} s), "
            f"coordinator {coordinator}: {reason}"
        ) from error
    if jax.default_backend() == "cpu" and jax.local_device_count() > 1:
        # From the cache a program of jax 0.10 comes without the order of its sums over
        # devices, and Gloo takes one for another: the second run would abort.
        jax.config.update("jax_enable_compilation_cache", False)
    logger.info("process %d of %d", jax.process_index(), jax.process_count())


def _explicit() -> tuple[str, int, int]:
    """Returns coordinator, number of processes and index from the variables."""
    values = {
        k: os.environ.get(k, "") for k in (COORDINATOR, NUM_PROCESSES, PROCESS_ID)
    }
    coordinator, count, index = values.values()
    address, _, port = coordinator.rpartition(":")
    numbers = (port, count, index)
    if not address or not all(n.isdecimal() for n in numbers):
        raise ValueError(
            f"expected {COORDINATOR}=HOST:PORT, {NUM_PROCESSES} and {PROCESS_ID} as "
            f"whole numbers, got {values}"
        )
    if not int(index) < int(count):
        raise ValueError(
            f"{PROCESS_ID}: expected 0 to {int(count) - 1}, as {NUM_PROCESSES} is "
            f"{count}, got {index}"
        )
    return coordinator, int(count), int(index)


def _detectable() -> bool:
    """Returns whether JAX should look for the other processes itself."""
    hosts = os.environ.get("TPU_PROCESS_ADDRESSES") or os.environ.get(
        "TPU_WORKER_HOSTNAMES", ""
    )
    # Set by srun alone: a shell inside an allocation is no task of several.
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    slices = os.environ.get("MEGASCALE_NUM_SLICES", "1")
    several = "," in hosts or tasks != "1" or slices != "1"
    return several or os.environ.get(COORDINATOR) == AUTO


class AgreedStop:
    """Stop signals of several processes; JAX's own handler notices SIGTERM.

    `stops` tells all processes the same step, whichever of them got the signal.

    Attributes:
      received: always False; ask `stops`.
    """

    received = False

    def __enter__(self) -> "AgreedStop":
        """Lets Ctrl-C mean what SIGTERM means."""
        self._before = signal.signal(signal.SIGINT, self._forward)
        return self

    def _forward(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        signal.signal(signal.SIGINT, self._before)
        signal.raise_signal(signal.SIGTERM)

    def __exit__(self, *exception: object) -> None:
        """Gives Ctrl-C back."""
        signal.signal(signal.SIGINT, self._before)


Stops = StopSignals | AgreedStop


def stop_signals() -> Stops:
    """Returns who notices SIGTERM and Ctrl-C while it is entered."""
    return StopSignals() if jax.process_count() == 1 else AgreedStop()


def stops(received: bool, step: int) -> bool:
    """Returns whether the run ends after this step: the same step on every process.

    Args:
      received: whether this process got a signal, where it is alone.
      step: the same number on every process, one higher at every call.
    """
    if jax.process_count() == 1:
        return received
    return multihost_utils.reached_preemption_sync_point(step)


def total(values: np.ndarray) -> np.ndarray:
    """Returns the sum of int64 over all processes; every process must call it."""
    if jax.process_count() == 1:
        return values
    # JAX cuts numbers to 32 bits: they travel in two halves.
    halves = np.stack([values >> 31, values & _LOW_BITS]).astype(np.int32)
    gathered = np.asarray(multihost_utils.process_allgather(halves), np.int64)
    high, low = gathered.sum(axis=0)
    return (high << 31) + low


def anywhere(happened: bool) -> bool:
    """Returns whether it happened on any process; every process must call it."""
    return bool(total(np.array(happened, np.int64)))


def of_first(value: int) -> int:
    """Returns what process 0 gives; every process must call it."""
    mine = value if jax.process_index() == 0 else 0
    return int(total(np.array(mine, np.int64)))


def same(value: bytes) -> bool:
    """Returns whether all processes give the same; every process must call it."""
    number = int.from_bytes(hashlib.sha256(value).digest()[:7], "big")
    return not anywhere(of_first(number) != number)


@contextlib.contextmanager
def first_process_first(name: str) -> Iterator[None]:
    """Runs its body on process 0, and then on the others: for files that one makes."""
    if jax.process_index() > 0:
        wait_for_all(name)
    try:
        yield
    finally:  # after an error as well, which the others then meet themselves
        if jax.process_index() == 0:
            wait_for_all(name)


def wait_for_all(name: str) -> None:
    """Returns when every process has come here."""
    if jax.process_count() > 1:
        # With `processes` it is a barrier of the coordinator, with a patience of our
        # choice; without, a sum over devices, which on CPU gives up sooner.
        ocp.multihost.sync_global_processes(
            name,
            timeout=PATIENCE_SECONDS,
            processes=set(range(jax.process_count())),
        )
