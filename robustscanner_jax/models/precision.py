"""Which dtype the sensitive parts of the network compute in."""

import jax.numpy as jnp
from jaxtyping import DTypeLike


def wide(dtype: DTypeLike) -> DTypeLike:
    """Returns the dtype of statistics, gates, softmax and logits: at least float32.

    Args:
      dtype: of the matrix products; bfloat16 and float32 give float32, float64 itself.
    """
    return jnp.promote_types(dtype, jnp.float32)
