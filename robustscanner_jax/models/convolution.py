"""Convolutions that keep the map's size, and their kernels' gradients on CPU.

XLA computes such a gradient as a convolution whose window is the whole map. On CPUs
that runs at a quarter of the forward pass's speed and takes two thirds of a training
step (docs/performance.md). Here it is a matrix product for each of the kernel's taps.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, DTypeLike, Float

# With less, XLA's own gradient is faster: channels of the input; cells of the map,
# height times width, where the factors are not bfloat16.
MIN_CHANNELS = 16
MIN_CELLS = 200


def same_conv(
    features: int, size: int, *, kernel_gradient: DTypeLike | None, **options: Any
) -> nn.Conv:
    """Returns Flax's convolution with stride 1, surrounded by zeros.

    Args:
      features: output channels.
      size: of the kernel, both ways; odd.
      kernel_gradient: dtype that the gradient of the kernel is multiplied in, tap by
        tap; None leaves it to XLA. The result does not depend on it.
      **options: of `nn.Conv`, but for strides, groups and precision.
    """
    return nn.Conv(
        features,
        (size, size),
        padding=size // 2,
        conv_general_dilated=_convolve(kernel_gradient),
        **options,
    )


def _convolve(gradient_dtype: DTypeLike | None) -> Callable[..., Array] | None:
    """Returns what Flax calls in place of `lax.conv_general_dilated`."""
    if gradient_dtype is None:
        return None
    min_cells = 0 if gradient_dtype == jnp.bfloat16 else MIN_CELLS

    def convolve(x: Array, kernel: Array, *_: Any, **__: Any) -> Array:
        _b, h, w, c = x.shape
        if c < MIN_CHANNELS or (kernel.shape[0] > 1 and h * w < min_cells):
            return _xla(x, kernel)
        return _by_taps(x, kernel, gradient_dtype)

    return convolve


def _xla(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _by_taps(x: Array, kernel: Array, gradient_dtype: DTypeLike) -> Array:
    return _xla(x, kernel)


def _forward(x, kernel, gradient_dtype):
    return _xla(x, kernel), (x, kernel)


def _backward(gradient_dtype, residuals, y_bar):
    x, kernel = residuals
    # The map's gradient is a convolution with the kernel turned by 180 degrees.
    x_bar = _xla(y_bar, kernel[::-1, ::-1].swapaxes(2, 3))
    gradient = kernel_gradient(x, y_bar, kernel.shape[0], gradient_dtype)
    return x_bar, gradient.astype(kernel.dtype)


_by_taps.defvjp(_forward, _backward)


def kernel_gradient(
    x: Float[Array, "b h w c"],
    y_bar: Float[Array, "b h w c2"],
    size: int,
    dtype: DTypeLike,
) -> Float[Array, "k k c c2"]:
    """Returns the gradient of a kernel from its input and the output's gradient.

    That of a tap is the product, over all cells, of the input shifted by it and the
    output's gradient.

    Args:
      x: input of the convolution.
      y_bar: gradient of the loss by its output.
      size: of the kernel, k.
      dtype: the factors are rounded to it, but for k = 1, where that gains nothing;
        their sum is float32, or float64.
    """
    c, c2 = x.shape[-1], y_bar.shape[-1]
    wide = jnp.promote_types(dtype, jnp.float32)
    if size == 1:
        products = jnp.dot(
            x.reshape(-1, c).T.astype(wide), y_bar.reshape(-1, c2).astype(wide)
        )
        return products.reshape(1, 1, c, c2)
    edge = size // 2
    padded = jnp.pad(x.astype(dtype), ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    rows = y_bar.astype(dtype).reshape(-1, c2).T

    def product(tap):
        shifted = lax.dynamic_slice(
            padded, (0, tap // size, tap % size, 0), x.shape
        ).reshape(-1, c)
        return jnp.dot(rows, shifted, preferred_element_type=wide)

    # A loop, because XLA undoes the transposition of products that stand in a row,
    # which makes them three times slower.
    products = lax.map(product, jnp.arange(size * size))
    return products.reshape(size, size, c2, c).swapaxes(2, 3)
