"""Pixels to the network's input, on the device: uint8 is what travels."""

import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, UInt8

from robustscanner_jax.models.precision import wide


def normalise(
    image: UInt8[Array, "b h w 3"],
    *,
    mean: float,
    scale: float,
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "b h w 3"]:
    """Returns (pixel - mean) / scale; padding of zeros becomes about -1."""
    return ((image.astype(wide(dtype)) - mean) / scale).astype(dtype)
