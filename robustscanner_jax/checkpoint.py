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
from robustscanner_jax.weights import listed


@dataclasses.dataclass(frozen=True)
class DataPosition:
    """Where training is in its data.

    The pipeline computes batch k from k alone, so its state is one number: it stays
    valid for another number of workers, devices or processes.

    Attributes:
      batches: global batches consumed.
      examples: seen so far, by the name of what is wrong with them; "none" are good.
    """

    batches: int
    examples: dict[str, int]


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
        self._manager = _open(
            self.folder,
            ocp.CheckpointManagerOptions(
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
        """Returns the newest step, placed like `like`: a state's shapes and shardings.

        Raises:
          ValueError: there is none, it holds other shapes, or it is damaged.
        """
        step = self.latest()
        if step is None:
            raise ValueError(f"{self.folder}: no complete checkpoint")
        network, training = _split(like)
        kept = _restore(
            self._manager, self.folder, step, {"network": network, "training": training}
        )
        state = _join(kept["network"], kept["training"])
        return state, DataPosition(**kept["data"])

    def wait(self) -> None:
        """Returns when everything that was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        self._manager.close()


def _open(
    folder: Path, options: ocp.CheckpointManagerOptions | None = None
) -> ocp.CheckpointManager:
    handlers = {
        "network": ocp.StandardCheckpointHandler(),
        "training": ocp.StandardCheckpointHandler(),
        "data": ocp.JsonCheckpointHandler(),
    }
    return ocp.CheckpointManager(folder, item_handlers=handlers, options=options)


def _restore(
    manager: ocp.CheckpointManager, folder: Path, step: int, wanted: dict[str, Any]
) -> Any:
    """Returns the items of a step with the shapes of `wanted`, and "data"."""
    try:
        # Compared before anything is read: orbax's own error has hundreds of lines.
        metadata = manager.item_metadata(step)
        different = listed(
            [
                difference
                for name, tree in wanted.items()
                for difference in _differences(_shapes(metadata[name]), _shapes(tree))
            ]
        )
        if not different:
            items = {name: ocp.args.StandardRestore(t) for name, t in wanted.items()}
            arguments = ocp.args.Composite(**items, data=ocp.args.JsonRestore())
            return manager.restore(step, args=arguments)
    except Exception as error:  # of any type, the base class included
        reason = str(error).strip().partition("\n")[0][:200]
        raise ValueError(
            f"{folder}: checkpoint {step} is damaged ({reason}); without its folder, "
            "the one before is used"
        ) from error
    raise ValueError(
        f"{folder}: checkpoint {step} does not fit this config ({different}); "
        "use the config of the run, or another --workdir"
    )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(getattr(tree, "tree", tree))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _differences(
    found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]
) -> list[str]:
    """Returns what differs between the arrays of a checkpoint and of a config."""
    if not found:
        raise ValueError("its metadata is missing")
    differences = []
    for path in sorted(found.keys() | wanted.keys()):
        if path not in found:
            differences.append(f"{path} is missing")
        elif path not in wanted:
            differences.append(f"{path} is not part of it")
        elif found[path] != wanted[path]:
            differences.append(
                f"{path}: expected shape {wanted[path]}, got {found[path]}"
            )
    return differences


def restore_variables(
    workdir: Path, shapes: dict[str, Any], *, sharding: Sharding
) -> tuple[dict[str, Any], int]:
    """Returns the variables that evaluation uses, and their step.

    Args:
      workdir: the run folder.
      shapes: of `params` and `batch_stats`, such as `jax.eval_shape` gives.
      sharding: where the arrays go.

    Raises:
      ValueError: no complete checkpoint, or one that is damaged or of another config.
    """
    folder = Path(workdir).resolve() / "checkpoints"
    if not folder.is_dir():
        raise ValueError(f"{folder}: not found; this run has saved nothing yet")
    with _open(folder) as manager:
        step = manager.latest_step()
        if step is None:
            raise ValueError(f"{folder}: no complete checkpoint")
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
        )
        return _restore(manager, folder, step, {"network": like})["network"], step
