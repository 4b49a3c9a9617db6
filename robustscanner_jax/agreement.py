"""What several processes must have in common before they train together.

Each of them opens the run folder and the data by itself. Where these are not the same
for all, training would go on without an error, and mean nothing. Nothing here acts in a
run of one process.
"""

import json
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from robustscanner_jax import config as config_lib
from robustscanner_jax import distributed
from robustscanner_jax.checkpoint import Checkpoints

# Seconds that a network file system may take to show what another machine wrote.
PATIENCE = 90.0


def check_folder(workdir: Path) -> None:
    """Checks that all processes see one run folder; each of them must call it.

    Raises:
      ValueError: what process 0 writes there does not appear for another; on all.
    """
    if jax.process_count() == 1:
        return
    probe = workdir / f".shared-{distributed.of_first(secrets.randbits(30))}"
    first = jax.process_index() == 0
    if first:
        probe.touch()
    distributed.wait_for_all("run folder")
    try:
        missing = distributed.anywhere(not _soon(probe.exists))
    finally:
        if first:
            probe.unlink(missing_ok=True)
    if missing:
        raise ValueError(
            f"{workdir}: not one folder for all {jax.process_count()} processes: what "
            "process 0 writes there does not appear for all; --workdir must be on "
            "storage that all machines share"
        )


def newest_step(checkpoints: Checkpoints) -> int | None:
    """Returns the newest step that is saved, the same for all processes.

    Each of them must call it. One whose listing is older waits until it shows the step.

    Raises:
      ValueError: a process does not see the step that process 0 sees; on all.
    """
    own = checkpoints.latest()
    if jax.process_count() == 1:
        return own
    newest = distributed.of_first(-1 if own is None else own)
    wanted = None if newest < 0 else newest

    def sees_it() -> bool:
        if checkpoints.latest() != wanted:
            checkpoints.reload()
        return checkpoints.latest() == wanted

    if distributed.anywhere(not _soon(sees_it)):
        raise ValueError(
            f"{checkpoints.folder}: process {jax.process_index()} sees step "
            f"{checkpoints.latest()} as the newest, process 0 step {wanted}; another "
            "run may be writing there, or the folder is not shared"
        )
    return wanted


def check_start(config: config_lib.Config, step: int, lengths: Sequence[int]) -> None:
    """Checks that all processes begin alike; each of them must call it.

    Args:
      config: of the run.
      step: of the state that this process begins with.
      lengths: examples in each source, as this process sees it.

    Raises:
      ValueError: one has another of these; on all.
    """
    begins = [json.loads(config.to_json_best_effort()), step, list(lengths)]
    if not distributed.same(json.dumps(begins, sort_keys=True).encode()):
        raise ValueError(
            "the processes do not begin alike; process "
            f"{jax.process_index()} has step {step} and sources of {list(lengths)} "
            "examples: give all of them the same flags, and the same files"
        )


def _soon(seen: Callable[[], bool]) -> bool:
    """Returns whether something is seen within `PATIENCE`."""
    deadline = time.monotonic() + PATIENCE
    while not seen():
        if time.monotonic() > deadline:
            return False
        time.sleep(1.0)
    return True
