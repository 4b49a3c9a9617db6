"""Attention over the flattened feature map, masked to the content of the image."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Real

from robustscanner_jax.models.precision import wide

# Finite on purpose: a row of -inf alone makes softmax return NaN.
MASKED_LOGIT = -1e9

MaskRounding = Literal["ceil", "nearest"]


def valid_cells(
    width: Real[Array, "b"],
    *,
    image_width: int,
    map_size: tuple[int, int],
    rounding: MaskRounding,
) -> Bool[Array, "b s"]:
    """Marks the cells of the map that hold content rather than padding.

    Args:
      width: content width of each image in pixels, in (0, image_width].
      image_width: padded width in pixels.
      map_size: (height, width) of the map in cells.
      rounding: of the content width in columns. "ceil" is MMOCR's rule, "nearest" is
        PaddleOCR's int(x + 0.5); at least one column is valid under both here.

    Returns one flag a cell, row-major.
    """
    rows, columns = map_size
    # Multiplying first: the product of small integers is exact, a ratio is not.
    content = width.astype(jnp.float32) * columns / image_width
    # A width that is a whole number of columns must not be pushed over it by rounding.
    content = (
        jnp.ceil(content - 1e-4) if rounding == "ceil" else jnp.floor(content + 0.5)
    )
    valid = jnp.arange(columns)[None, :] < jnp.maximum(content, 1)[:, None]
    return jnp.tile(valid, (1, rows))


def attention_weights(
    query: Float[Array, "b t d"],
    keys: Float[Array, "b s d"],
    valid: Bool[Array, "b s"],
) -> Float[Array, "b t s"]:
    """Returns weights that sum to 1 over the valid cells.

    The logits are not scaled by sqrt(d), as in the published networks. The softmax runs
    in float32, or wider with wider inputs.
    """
    dtype = wide(query.dtype)
    logits = jnp.einsum("btd,bsd->bts", query, keys, preferred_element_type=dtype)
    logits = jnp.where(valid[:, None, :], logits, MASKED_LOGIT)
    return jax.nn.softmax(logits, axis=-1)


def read_glimpses(
    weights: Float[Array, "b t s"], values: Float[Array, "b s v"]
) -> Float[Array, "b t v"]:
    """Returns one weighted mean of the values for each step."""
    return jnp.einsum("bts,bsv->btv", weights.astype(values.dtype), values)
