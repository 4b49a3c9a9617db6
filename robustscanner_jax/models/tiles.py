"""Convolutions as products of bfloat16 tiles, for CPUs that multiply those (AMX).

XLA hands matrix products of bfloat16 factors to such a processor's tiles, at five times
the speed of float32, but no convolutions. Here all three passes of training are matrix
products: of a few maps at a time, so that what is written for them stays in the
processor's cache, and of a row of the kernel at a time, whose taps lie side by side in
the channels. Measured in docs/performance.md.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, UInt16

# Cells, height times width, of the maps that are multiplied at once.
GROUP_CELLS = 4096


def convolution(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k c c2"]
) -> Float[Array, "b h w c2"]:
    """Returns the convolution with stride 1 of factors rounded to bfloat16.

    Args:
      x: maps; zeros surround them.
      kernel: of odd size.

    Returns:
      sums of float32, as `x.dtype`.
    """
    rows = _rows(kernel)

    def of_group(maps):
        return _convolve(maps, rows).astype(x.dtype)

    return _joined(lax.map(of_group, _groups(x)), len(x))


def gradients(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k c c2"],
    y_bar: Float[Array, "b h w c2"],
) -> tuple[Float[Array, "b h w c"], Float[Array, "k k c c2"]]:
    """Returns the gradients of `convolution` by its maps and its kernel.

    One loop for both: in two loops, which XLA runs at once, each works in the cache of
    the other.

    Args:
      x: as given to `convolution`.
      kernel: likewise.
      y_bar: gradient of the loss by the result; its factors are bfloat16 as well.
    """
    size, _, c, c2 = kernel.shape
    # The map's gradient is a convolution with the kernel turned by 180 degrees.
    turned = _rows(kernel[::-1, ::-1].swapaxes(2, 3))
    bars = _groups(y_bar)
    # All transposed beforehand: within the loop XLA would fold the transposition into
    # the product, and call a slow kind of product.
    columns = _bits(bars).reshape(len(bars), -1, c2).swapaxes(1, 2)

    def add_group(sums, group):
        maps, bar, column = group
        products = [_dot(column, cells) for cells in _by_row(maps, size)]
        x_bar = _convolve(bar, turned).astype(x.dtype)
        return sums + jnp.stack(products), x_bar

    zeros = jnp.zeros((size, c2, size * c), jnp.float32)
    sums, x_bar = lax.scan(add_group, zeros, (_groups(x), bars, columns))
    kernel_bar = jnp.moveaxis(sums.reshape(size, c2, size, c), 1, 3)
    return _joined(x_bar, len(x)), kernel_bar.astype(kernel.dtype)


def _groups(x: Float[Array, "b h w c"]) -> Float[Array, "n g h w c"]:
    """Returns the maps in groups of one size; zeros fill the last, and add nothing."""
    b, h, w, c = x.shape
    # At least two groups, because XLA writes a loop of one turn out, which is slow; of
    # at least two maps, because it lays single ones out in another order and back.
    most = max(1, min(b // 2, max(2, GROUP_CELLS // (h * w))))
    count = -(-b // most)
    size = -(-b // count)
    x = jnp.pad(x, ((0, count * size - b), (0, 0), (0, 0), (0, 0)))
    return x.reshape(count, size, h, w, c)


def _joined(groups: Float[Array, "n g h w c"], count: int) -> Float[Array, "b h w c"]:
    return groups.reshape(-1, *groups.shape[2:])[:count]


def _bits(x: Array) -> UInt16[Array, "..."]:
    """Returns bfloat16 numbers as XLA moves them best.

    XLA on CPU pads, joins and transposes bfloat16 as float32, and rounds it again.
    """
    return lax.bitcast_convert_type(x.astype(jnp.bfloat16), jnp.uint16)


def _rows(kernel: Float[Array, "k k c c2"]) -> UInt16[Array, "k kc c2"]:
    size, _, c, c2 = kernel.shape
    return _bits(kernel).reshape(size, size * c, c2)


def _by_row(x: Float[Array, "g h w c"], size: int) -> list[UInt16[Array, "ghw kc"]]:
    """Returns what each row of a kernel sees: in a cell the channels of its taps."""
    _g, h, w, c = x.shape
    edge = size // 2
    padded = jnp.pad(_bits(x), ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    shifted = [padded[:, :, column : column + w] for column in range(size)]
    wide = jnp.concatenate(shifted, axis=-1)
    return [wide[:, row : row + h].reshape(-1, size * c) for row in range(size)]


def _convolve(
    x: Float[Array, "g h w c"], rows: UInt16[Array, "k kc c2"]
) -> Float[Array, "g h w c2"]:
    seen = _by_row(x, len(rows))
    products = [_dot(cells, row) for cells, row in zip(seen, rows, strict=True)]
    return sum(products[1:], products[0]).reshape(*x.shape[:3], -1)


def _dot(a: UInt16[Array, "m k"], b: UInt16[Array, "k n"]) -> Float[Array, "m n"]:
    a, b = (lax.bitcast_convert_type(x, jnp.bfloat16) for x in (a, b))
    return jnp.dot(a, b, preferred_element_type=jnp.float32)
