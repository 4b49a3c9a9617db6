"""From a folder of checkpoints to arrays: the newest that is whole and fits.

What a disk does to a checkpoint after it was written shows in its digests; then the
step before is used, with a warning.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding

from robustscanner_jax import digest, distributed, partition
from robustscanner_jax.weights import listed

logger = logging.getLogger(__name__)

# Before a checkpoint counts as damaged: a network file system may fail once.
ATTEMPTS = 2
# What a reader of an intact checkpoint may meet.
NO_DAMAGE = ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED")


class _Damaged(ValueError):
    """A checkpoint does not hold what was saved."""


def open_folder(
    folder: Path, options: ocp.CheckpointManagerOptions | None = None
) -> ocp.CheckpointManager:
    """Returns orbax's manager of a folder of checkpoints."""
    handlers = {
        "network": ocp.StandardCheckpointHandler(),
        "training": ocp.StandardCheckpointHandler(),
        "data": ocp.JsonCheckpointHandler(),
    }
    return ocp.CheckpointManager(folder, item_handlers=handlers, options=options)


def restore_newest(
    manager: ocp.CheckpointManager, folder: Path, wanted: Sequence[dict[str, Any]]
) -> tuple[Any, int]:
    """Returns the items of the newest step that is whole, with "data", and the step.

    Args:
      manager: see `open_folder`.
      folder: of the checkpoints.
      wanted: what may have been saved, each as items of shapes with shardings. Those
        that fit are restored.

    Raises:
      ValueError: there is none, it holds other shapes, or all are damaged.
    """
    steps = sorted(manager.all_steps(), reverse=True)
    if not steps:
        raise ValueError(f"{folder}: no complete checkpoint")
    damaged = []
    for step in steps:
        problem = None
        for _ in range(ATTEMPTS):
            kept = None
            try:
                kept = _restore(manager, folder, step, wanted)
            except _Damaged as error:
                problem = str(error)
            # Together they try again, or take the step before: reading has barriers.
            if not distributed.anywhere(kept is None):
                return kept, step
        problem = problem or "another process cannot read it"
        logger.warning("%s: checkpoint %d is damaged (%s)", folder, step, problem)
        damaged.append(f"{step} ({problem})")
    raise ValueError(
        f"{folder}: every checkpoint is damaged: {', '.join(damaged)}; restore one "
        "from a copy, or use another --workdir"
    )


def _restore(
    manager: ocp.CheckpointManager,
    folder: Path,
    step: int,
    wanted: Sequence[dict[str, Any]],
) -> Any:
    """Returns the items of a step with the shapes of one of `wanted`, and "data"."""
    try:
        # Compared before anything is read: orbax's own error has hundreds of lines.
        metadata = manager.item_metadata(step)
        different, nearest = min(
            ((_differences(metadata, items), items) for items in wanted),
            key=lambda way: len(way[0]),
        )
        if not different:
            items = {name: ocp.args.StandardRestore(t) for name, t in nearest.items()}
            arguments = ocp.args.Composite(**items, data=ocp.args.JsonRestore())
            kept = manager.restore(step, args=arguments)
            _check_digests(kept, nearest)
            return kept
    except Exception as error:  # of any type, the base class included
        if isinstance(error, PermissionError | MemoryError) or any(
            code in str(error) for code in NO_DAMAGE
        ):
            raise
        raise _Damaged(str(error).strip().partition("\n")[0][:200]) from error
    raise ValueError(
        f"{folder}: checkpoint {step} does not fit this config "
        f"({listed(different)}); "
        "use the config of the run, or another --workdir"
    )


def _check_digests(kept: Any, names: Any) -> None:
    data = dict(kept["data"])
    if not data.keys() & {"crc32", "digests"}:
        logger.warning("this checkpoint is from before digests: nothing to verify")
        return
    if data.pop("crc32", None) != digest.of_json(data):
        raise ValueError("its data position is not what was saved")
    for name in names:
        if digest.of_arrays(kept[name]) != data["digests"][name]:
            raise ValueError(f"the arrays of {name!r} are not what was saved")


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(getattr(tree, "tree", tree))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _differences(metadata: Any, wanted: dict[str, Any]) -> list[str]:
    """Returns what differs between the arrays of a checkpoint and of a config."""
    return [
        difference
        for name, tree in wanted.items()
        for difference in _item_differences(_shapes(metadata[name]), _shapes(tree))
    ]


def _item_differences(
    found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]
) -> list[str]:
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
      ValueError: no complete checkpoint, none that is whole, or another config.
    """
    folder = Path(workdir).resolve() / "checkpoints"
    if not folder.is_dir():
        raise ValueError(f"{folder}: not found; this run has saved nothing yet")
    like = partition.placed_shapes(shapes, sharding)
    with open_folder(folder) as manager:
        kept, step = restore_newest(manager, folder, [{"network": like}])
        return kept["network"], step
