"""How the network is computed on the device at hand: what moves speed, not meaning."""

import logging
import os
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from robustscanner_jax.models.robustscanner import RobustScanner

logger = logging.getLogger(__name__)

# The XLA of jax 0.11.2 fuses bfloat16 networks on CPU into NaN. Set to nothing, as in
# XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type= , it does not.
_FUSION_FLAG = "--xla_cpu_experimental_ynn_fusion_type"

# Where a name may come from a config or a flag, `str` is taken, and checked.
ComputeDtype = Literal["auto", "float32", "bfloat16"]
# Of the recurrences on accelerators: 4 % of a training step on an H100; on CPU it costs
# 3 %. docs/performance.md
UNROLL = 4


def compute_dtype(name: ComputeDtype | str) -> Any:
    """Returns the dtype of "float32", "bfloat16" or "auto".

    "auto" is bfloat16 on accelerators and float32 on CPU, where bfloat16 is slower
    but for some products, see `_training_factors`.

    Raises:
      ValueError: another name.
    """
    if name not in get_args(ComputeDtype):
        known = ", ".join(get_args(ComputeDtype))
        raise ValueError(f"dtype: expected one of {known}, got {name!r}")
    if name == "auto":
        name = "bfloat16" if _has_accelerator() else "float32"
    return jnp.dtype(name)


def for_device(model: RobustScanner, dtype: ComputeDtype | str) -> RobustScanner:
    """Returns the network as this process's devices compute it fastest.

    Args:
      model: any; its parameters fit the result.
      dtype: see `compute_dtype`.

    Raises:
      ValueError: `dtype` is no `ComputeDtype`.
    """
    if _has_accelerator():
        return model.clone(dtype=compute_dtype(dtype), unroll=UNROLL)
    if dtype == "bfloat16" and _may_become_nan():
        logger.warning(
            "jax %s computes bfloat16 networks on CPU as NaN: take float32, or set "
            "XLA_FLAGS=%s= (nothing behind the equals sign)",
            jax.__version__,
            _FUSION_FLAG,
        )
    # Not on several devices: XLA would sum between them in every turn of a loop. And
    # several processes must compile one program, whatever their processors.
    alone = jax.device_count() == 1
    return model.clone(
        dtype=compute_dtype(dtype),
        training_factors=_training_factors(dtype) if alone else None,
    )


def _training_factors(name: ComputeDtype | str) -> Any:
    """Returns what convolutions are trained with on CPU, see `models.convolution`.

    That is bfloat16 where the processor multiplies tiles of it, and float32 elsewhere
    and where that is asked for.
    """
    rounds = name != "float32" and _has_bfloat16_tiles()
    return jnp.dtype("bfloat16" if rounds else "float32")


def _has_bfloat16_tiles() -> bool:
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False


def _may_become_nan() -> bool:
    newer = jax.__version_info__ >= (0, 11)
    return newer and _FUSION_FLAG not in os.environ.get("XLA_FLAGS", "")


def _has_accelerator() -> bool:
    return jax.default_backend() != "cpu"
