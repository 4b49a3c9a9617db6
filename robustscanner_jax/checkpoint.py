"""Checkpoints of a run: variables, optimiser and data position, saved as one unit.

Orbax writes each step under a temporary name and renames it when all of it is there, so
a step that is listed is complete.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding

from robustscanner_jax.steps import TrainState


@dataclasses.dataclass(frozen=True)
class DataPosition:
    """Where training is in its data.

    The pipeline computes batch k from k alone, so its state is one number: it stays
    valid for another number of workers, devices or processes.

    Attributes:
      batches: global batches consumed.
      problems: examples left out so far, by the name of the reason.
    """

    batches: int
    problems: dict[str, int]


def _split(state: TrainState) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what reading needs, and what only training needs."""
    training = {
        "step": state.step,
        "opt_state": state.opt_state,
        "skipped_in_row": state.skipped_in_row,
        # With an average, reading uses that, and training these.
        "params": state.params if state.ema_params else {},
    }
    return state.variables, training


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
        self._manager = ocp.CheckpointManager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, cleanup_tmp_directories=True
            ),
        )

    def latest(self) -> int | None:
        """Returns the newest complete step, or None."""
        return self._manager.latest_step()

    def save(self, state: TrainState, position: DataPosition) -> None:
        """Saves a step; writing goes on in the background."""
        network, training = _split(state)
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                network=ocp.args.StandardSave(network),
                training=ocp.args.StandardSave(training),
                data=ocp.args.JsonSave(dataclasses.asdict(position)),
            ),
        )

    def restore(self, like: TrainState) -> tuple[TrainState, DataPosition]:
        """Returns the newest step, placed like `like` (a state or its shapes).

        Raises:
          ValueError: there is none, or it holds other shapes.
        """
        step = self.latest()
        if step is None:
            raise ValueError(f"{self.folder}: no complete checkpoint")
        network, training = jax.tree.map(ocp.utils.to_shape_dtype_struct, _split(like))
        try:
            kept = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    network=ocp.args.StandardRestore(network),
                    training=ocp.args.StandardRestore(training),
                    data=ocp.args.JsonRestore(),
                ),
            )
        except (ValueError, KeyError) as error:
            raise ValueError(_mismatch(self.folder, step, error)) from error
        state = _join(kept["network"], kept["training"])
        return state, DataPosition(**kept["data"])

    def wait(self) -> None:
        """Returns when everything that was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        self._manager.close()


def _mismatch(folder: Path, step: int, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0]
    return (
        f"{folder}: checkpoint {step} does not fit this config ({reason}); "
        "use the config of the run, or another --workdir"
    )


def restore_variables(
    workdir: Path, shapes: dict[str, Any], *, sharding: Sharding
) -> tuple[dict[str, Any], int]:
    """Returns the variables that evaluation uses, and their step.

    Args:
      workdir: the run folder.
      shapes: of `params` and `batch_stats`, such as `jax.eval_shape` gives.
      sharding: where the arrays go.

    Raises:
      ValueError: no complete checkpoint, or one of another config.
    """
    folder = Path(workdir).resolve() / "checkpoints"
    if not folder.is_dir():
        raise ValueError(f"{folder}: not found; this run has saved nothing yet")
    with ocp.CheckpointManager(folder) as manager:
        step = manager.latest_step()
        if step is None:
            raise ValueError(f"{folder}: no complete checkpoint")
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
        )
        try:
            network = manager.restore(
                step,
                args=ocp.args.Composite(network=ocp.args.StandardRestore(like)),
            )["network"]
        except (ValueError, KeyError) as error:
            raise ValueError(_mismatch(folder, step, error)) from error
    return network, step
