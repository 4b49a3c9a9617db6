"""Convolutions that keep the map's size, and how CPUs train them.

XLA computes a kernel's gradient as a convolution whose window is the whole map. On CPUs
that runs at a quarter of the forward pass's speed and takes two thirds of a training
step (docs/performance.md). Here it is a matrix product for each of the kernel's taps;
where factors may be bfloat16, all of training is products (`models.tiles`).
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, DTypeLike, Float

from robustscanner_jax.models import tiles

# With less, XLA's own gradient is faster: channels of the input; cells of the map,
# height times width, where the factors are not bfloat16.
MIN_CHANNELS = 16
MIN_CELLS = 200


def same_conv(
    features: int, size: int, *, training_factors: DTypeLike | None, **options: Any
) -> nn.Conv:
    """Returns Flax's convolution with stride 1, surrounded by zeros.

    Args:
      features: output channels.
      size: of the kernel, both ways; odd.
      training_factors: how it is differentiated. None leaves that to XLA. With bfloat16
        all three passes multiply factors rounded to it, the forward pass as well, also
        where the gradient is stopped later; with another dtype the kernel's gradient
        alone is computed otherwise, tap by tap. Outside of a differentiated function
        the result does not depend on this.
      **options: of `nn.Conv`, but for strides, groups and precision.
    """
    return nn.Conv(
        features,
        (size, size),
        padding=size // 2,
        conv_general_dilated=_convolve(training_factors),
        **options,
    )


def _convolve(factors: DTypeLike | None) -> Callable[..., Array] | None:
    """Returns what Flax calls in place of `lax.conv_general_dilated`."""
    if factors is None:
        return None
    of_tiles = jnp.dtype(factors) == jnp.bfloat16
    min_cells = 0 if of_tiles else MIN_CELLS

    def convolve(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
        _b, h, w, c = x.shape
        if c < MIN_CHANNELS or (kernel.shape[0] > 1 and h * w < min_cells):
            return _xla(x, kernel)
        return _of_tiles(x, kernel) if of_tiles else _by_taps(x, kernel)

    return convolve


def _xla(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@jax.custom_vjp
def _by_taps(x: Array, kernel: Array) -> Array:
    return _xla(x, kernel)


def _taps_gradients(residuals, y_bar):
    x, kernel = residuals
    # The map's gradient is a convolution with the kernel turned by 180 degrees.
    x_bar = _xla(y_bar, kernel[::-1, ::-1].swapaxes(2, 3))
    return x_bar, kernel_gradient(x, y_bar, kernel.shape[0]).astype(kernel.dtype)


_by_taps.defvjp(lambda x, kernel: (_xla(x, kernel), (x, kernel)), _taps_gradients)


@jax.custom_vjp
def _of_tiles(x: Array, kernel: Array) -> Array:
    # Called as such outside of differentiated functions: reading does not round.
    return _xla(x, kernel)


_of_tiles.defvjp(
    lambda x, kernel: (tiles.convolution(x, kernel), (x, kernel)),
    lambda residuals, y_bar: tiles.gradients(residuals[0], residuals[1], y_bar),
)


def kernel_gradient(
    x: Float[Array, "b h w c"], y_bar: Float[Array, "b h w c2"], size: int
) -> Float[Array, "k k c c2"]:
    """Returns the gradient of a kernel from its input and the output's gradient.

    That of a tap is the product, over all cells, of the input shifted by it and the
    output's gradient.

    Args:
      x: input of the convolution.
      y_bar: gradient of the loss by its output.
      size: of the kernel, k.

    Returns:
      sums of float32, or float64.
    """
    c, c2 = x.shape[-1], y_bar.shape[-1]
    dot = functools.partial(
        jnp.dot, preferred_element_type=jnp.promote_types(x.dtype, jnp.float32)
    )
    if size == 1:
        return dot(x.reshape(-1, c).T, y_bar.reshape(-1, c2)).reshape(1, 1, c, c2)
    edge = size // 2
    padded = jnp.pad(x, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    rows = y_bar.reshape(-1, c2).T

    def product(tap):
        shifted = lax.dynamic_slice(
            padded, (0, tap // size, tap % size, 0), x.shape
        ).reshape(-1, c)
        return dot(rows, shifted)

    # A loop, because XLA undoes the transposition of products that stand in a row,
    # which makes them three times slower.
    products = lax.map(product, jnp.arange(size * size))
    return products.reshape(size, size, c2, c).swapaxes(2, 3)
