"""How the network is computed on the device at hand: what moves speed, not meaning."""

from typing import Any

import jax
import jax.numpy as jnp

from robustscanner_jax.models.robustscanner import RobustScanner

# Of the recurrences on accelerators: 4 % of a training step on an H100; on CPU it costs
# 3 %. docs/performance.md
UNROLL = 4


def compute_dtype(name: str) -> Any:
    """Returns the dtype of "float32", "bfloat16" or "auto".

    "auto" is bfloat16 on accelerators and float32 on CPU, where bfloat16 is slower.
    """
    if name == "auto":
        name = "bfloat16" if _has_accelerator() else "float32"
    return jnp.dtype(name)


def for_device(model: RobustScanner, dtype: str) -> RobustScanner:
    """Returns the network as this process's devices compute it fastest.

    Args:
      model: any; its parameters fit the result.
      dtype: see `compute_dtype`.
    """
    return model.clone(
        dtype=compute_dtype(dtype), unroll=UNROLL if _has_accelerator() else 1
    )


def _has_accelerator() -> bool:
    return jax.default_backend() != "cpu"
