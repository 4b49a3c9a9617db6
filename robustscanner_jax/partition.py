"""Mapping over accelerators: how a training step's arrays lie on the devices.

Meshes and the shardings of training are made here alone; what processes agree on is in
`distributed`, and `compute` and `open_weights` place arrays for reading on one device.

All devices of all processes form one axis, "data". A batch is split along it, the state
is replicated, and `jit` inserts the sums over devices; batch norm and loss then see the
global batch, so that eight devices compute what one does. Since JAX 0.8 `jax.pmap` is
built from the same parts.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

AXIS = "data"


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh with one axis over the devices; by default all of them."""
    # Not `jax.make_mesh`: its axes are explicit by default, where an embedding of
    # split tokens raises.
    return Mesh(np.array(devices if devices is not None else jax.devices()), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of the state: a copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: rows split over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def check_batch_size(batch_size: int, mesh: Mesh, *, accumulate: int = 1) -> None:
    """Raises `ValueError` where the devices cannot share each micro-batch evenly."""
    if accumulate < 1 or batch_size % (mesh.size * accumulate):
        parts = f" in {accumulate} micro-batches" if accumulate != 1 else ""
        raise ValueError(
            f"batch size {batch_size} cannot be split over {mesh.size} devices{parts}: "
            f"choose a multiple of {mesh.size * max(accumulate, 1)}"
        )


def put_batch(
    batch: dict[str, np.ndarray], keys: Sequence[str], mesh: Mesh
) -> dict[str, jax.Array]:
    """Returns global arrays of `keys`, of which this process gives its rows."""
    sharding = split(mesh)
    return {
        key: jax.make_array_from_process_local_data(sharding, batch[key])
        for key in keys
    }


def jit_step(step: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """Compiles `step(state, batch, learning_rate) -> (state, metrics)` for the mesh.

    The state is donated: its memory is taken for the next one.
    """
    copy, rows = replicated(mesh), split(mesh)
    return jax.jit(
        step,
        in_shardings=(copy, rows, copy),
        out_shardings=(copy, copy),
        donate_argnums=0,
    )


def place_state(create: Callable[[], Any], mesh: Mesh) -> Any:
    """Returns `create()`, computed on the devices as a copy on each."""
    return jax.jit(create, out_shardings=replicated(mesh))()


def replicated_shapes(shapes: Any, mesh: Mesh) -> Any:
    """Returns the shapes with the sharding of the state, for restoring into them."""
    return placed_shapes(shapes, replicated(mesh))


def placed_shapes(shapes: Any, sharding: Sharding) -> Any:
    """Returns the shapes with a sharding, for restoring into them."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
    )
