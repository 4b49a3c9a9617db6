"""Checkpoints of a run: variables, optimiser and data position, saved as one unit.

Orbax writes each step under a temporary name and renames it when all of it is there, so
a step that is listed is complete. Digests tell later whether it still is.
"""

import dataclasses
import errno
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from robustscanner_jax import digest, distributed
from robustscanner_jax.checkpoint_reading import open_folder, restore_newest
from robustscanner_jax.optim import former_layouts
from robustscanner_jax.steps import TrainState

logger = logging.getLogger(__name__)

# What a damaged step is called once training went on from the one before.
DAMAGED = ".damaged"
# A checkpoint takes so much more than its arrays, at most.
OVERHEAD = 1.05


class NotSaved(OSError):
    """A checkpoint could not be written; those before it are untouched."""


@dataclasses.dataclass(frozen=True)
class DataPosition:
    """Where training is in its data.

    The pipeline computes batch k from k alone, so its state is one number: it stays
    valid for another number of workers, devices or processes.

    Attributes:
      batches: global batches consumed.
      examples: seen so far, by the name of what is wrong with them; "none" are good.
      lengths: examples of each source, which order depends on; empty in checkpoints
        from before it was kept.
    """

    batches: int
    examples: dict[str, int]
    lengths: list[int] = dataclasses.field(default_factory=list)


def _items(state: TrainState) -> dict[str, Any]:
    """Returns what reading needs, and what only training needs, by name."""
    training = {
        "step": state.step,
        "opt_state": state.opt_state,
        "skipped_in_row": state.skipped_in_row,
        # With an average, reading uses that, and training these.
        "params": state.params if state.ema_params else {},
    }
    return {"network": state.variables, "training": training}


def _ways_it_was_saved(like: TrainState) -> Iterator[TrainState]:
    """Yields the states, as shapes, that a checkpoint of this run may hold.

    The first is `like`. The others have an average of the parameters where it has none
    or none where it has one, and the optimiser's state as earlier versions nested it.
    """
    for average in (like.ema_params, {} if like.ema_params else like.params):
        for opt_state in (like.opt_state, *former_layouts(like.opt_state)):
            yield like.replace(ema_params=average, opt_state=opt_state)


def _as(like: TrainState, found: TrainState) -> TrainState:
    """Returns what was found in one of `_ways_it_was_saved` as a state like `like`."""
    average = found.ema_params
    if like.ema_params and not average:
        logger.info("the average of the parameters begins here, from the parameters")
        # Copied: the state is donated, and a buffer can be donated only once.
        average = jax.tree.map(jnp.copy, found.params)
    elif average and not like.ema_params:
        logger.info("the average of the parameters ends here; reading uses them as is")
        average = {}
    opt_state = jax.tree.unflatten(
        jax.tree.structure(like.opt_state), jax.tree.leaves(found.opt_state)
    )
    return found.replace(ema_params=average, opt_state=opt_state)


def _join(network: dict[str, Any], training: dict[str, Any]) -> TrainState:
    averaged = bool(training["params"])
    params = training.pop("params") if averaged else network["params"]
    training.pop("params", None)
    return TrainState(
        params=params,
        ema_params=network["params"] if averaged else {},
        batch_stats=network["batch_stats"],
        **training,
    )


class Checkpoints:
    """The checkpoints of one run folder.

    Args:
      workdir: the run folder; `checkpoints/` is made inside.
      keep: newest steps that stay on disk.
    """

    def __init__(self, workdir: Path, *, keep: int):
        self.folder = Path(workdir).resolve() / "checkpoints"
        self._manager = open_folder(
            self.folder,
            ocp.CheckpointManagerOptions(
                max_to_keep=keep, cleanup_tmp_directories=True
            ),
        )

    def latest(self) -> int | None:
        """Returns the newest complete step, or None."""
        return self._manager.latest_step()

    def reload(self) -> None:
        """Looks at the folder again, where another process may have written."""
        self._manager.reload()

    def save(self, state: TrainState, position: DataPosition) -> None:
        """Saves a step; writing goes on in the background.

        That the step before could not be written is logged, and costs that step alone.

        Raises:
          NotSaved: the disk has no room, on every process alike.
        """
        try:
            self.wait()
        except NotSaved as error:
            logger.error("the checkpoint before this one was not saved: %s", error)
        items = _items(state)
        self._sweep()
        self._need_room(items)
        data: dict[str, Any] = dataclasses.asdict(position)
        data["digests"] = {name: digest.of_arrays(tree) for name, tree in items.items()}
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                **{name: ocp.args.StandardSave(tree) for name, tree in items.items()},
                data=ocp.args.JsonSave(data | {"crc32": digest.of_json(data)}),
            ),
        )

    def _need_room(self, arrays: Any) -> None:
        """Raises `NotSaved` on every process where the first finds too little space."""
        needed = OVERHEAD * sum(x.nbytes for x in jax.tree.leaves(arrays))
        problem = ""
        if jax.process_index() == 0:
            try:
                free = shutil.disk_usage(self.folder).free
            except OSError as error:
                problem = f"{self.folder}: {error.strerror}"
            else:
                if free < needed:
                    problem = (
                        f"{self.folder}: a checkpoint takes up to {needed / 1e6:,.0f} "
                        f"MB, and {free / 1e6:,.0f} MB are free"
                    )
        if distributed.anywhere(bool(problem)):
            raise NotSaved(problem or f"{self.folder}: see the log of process 0")

    def restore(self, like: TrainState) -> tuple[TrainState, DataPosition]:
        """Returns the newest step, placed like `like`: a state's shapes and shardings.

        Where `like` has an average of the parameters and the step has none, it begins
        at the parameters; where only the step has one, it is dropped.

        Steps that are damaged are passed over with a warning, and get another name:
        training goes on from the one before, and will save them again.

        Raises:
          ValueError: there is none, it holds other shapes, or all are damaged.
        """
        wanted = [_items(way) for way in _ways_it_was_saved(like)]
        kept, step = restore_newest(self._manager, self.folder, wanted)
        self._set_aside_after(step)
        state = _as(like, _join(kept["network"], kept["training"]))
        data = kept["data"]
        kept = (data["batches"], data["examples"], data.get("lengths", []))
        return state, DataPosition(*kept)

    def _set_aside_after(self, step: int) -> None:
        damaged = [s for s in self._manager.all_steps() if s > step]
        if not damaged:
            return
        if jax.process_index() == 0:
            for number in damaged:
                path = self.folder / str(number)
                shutil.rmtree(path.with_name(path.name + DAMAGED), ignore_errors=True)
                path.rename(path.with_name(path.name + DAMAGED))
        distributed.wait_for_all("damaged")
        self._manager.reload()

    def wait(self) -> None:
        """Returns when everything that was saved is on disk; every process calls it.

        Raises:
          NotSaved: it is not, on every process alike.
        """
        failure = self._failure()
        if not distributed.anywhere(failure is not None):
            return
        self._sweep()
        distributed.wait_for_all("not saved")
        self._manager.reload()  # it had taken the oldest off its list for this one
        raise NotSaved(f"{self.folder}: {failure or 'another process could not write'}")

    def _sweep(self) -> None:
        """Removes what failed saves wrote, while none is going on.

        A late thread of one may make its folder again: that goes with the next save.
        """
        if jax.process_index() == 0:
            for part in self.folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(part, ignore_errors=True)

    def _failure(self) -> str | None:
        """Waits for this process's writing, and returns what went wrong with it."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # of any type: it comes from a thread
            reason, full = str(error).strip(), os.strerror(errno.ENOSPC)
            # In the middle of hundreds of characters.
            return full if full in reason else reason.partition("\n")[0][:200]
        return None

    def close(self) -> None:
        """Waits for this process, then lets go of the folder.

        Raises nothing: it runs on the way out, perhaps of one process alone.
        """
        failure = self._failure()
        if failure is not None:
            logger.error("the last checkpoint was not saved: %s", failure)
        self._manager.close()
