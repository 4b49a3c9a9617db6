"""Floating-point operations of a computation, counted from its matrix products.

Counted from the model rather than from the compiler's analysis, which adds what it
recomputes: this is the numerator of model FLOP utilisation (MFU).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core as jex_core

from robustscanner_jax.models.robustscanner import RobustScanner

# Dense bfloat16 peak of one device in FLOP/s, from the makers' data sheets.
PEAK_FLOPS = {
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}


def count(function: Callable[..., Any], *args: Any) -> int:
    """Returns the FLOP of the products and convolutions in `function(*args)`.

    A multiplication and an addition are two. Loops of known length count as often as
    they run; a `while_loop` counts once. `args` may be shapes.
    """
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _count(jaxpr: jex_core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, params = equation.primitive.name, equation.params
        inputs: list[Any] = [variable.aval for variable in equation.invars]
        outputs: list[Any] = [variable.aval for variable in equation.outvars]
        if name == "conv_general_dilated":
            kernel = inputs[1].shape
            spec = params["dimension_numbers"].rhs_spec  # (out, in, *space)
            per_output = math.prod(kernel) // kernel[spec[0]]
            total += 2 * outputs[0].size * per_output
        elif name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            left = inputs[0].shape
            depth = math.prod(left[axis] for axis in contracted)
            total += 2 * outputs[0].size * depth
        else:
            repeats = params.get("length", 1) if name == "scan" else 1
            total += repeats * sum(map(_count, _inner(params)))
    return total


def _inner(params: dict[str, Any]) -> list[jex_core.Jaxpr]:
    """Returns the computations inside an operation: bodies, branches, calls."""
    found = []
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, jex_core.ClosedJaxpr):
                found.append(item.jaxpr)
            elif isinstance(item, jex_core.Jaxpr):
                found.append(item)
    return found


def forward_flops(model: RobustScanner, image_size: tuple[int, int]) -> int:
    """Returns the FLOP of one image's teacher-forced pass; training takes three."""
    image = jax.ShapeDtypeStruct((1, *image_size, 3), jnp.float32)
    width = jax.ShapeDtypeStruct((1,), jnp.int32)
    tokens = jax.ShapeDtypeStruct((1, model.max_len), jnp.int32)

    def forward(image, width, tokens):
        key = jax.random.key(0)
        return model.init_with_output(key, image, width, tokens, train=False)[0]

    return count(forward, image, width, tokens)


def peak_flops(device: Any) -> float | None:
    """Returns the device's dense bfloat16 peak in FLOP/s, or None if unknown."""
    return PEAK_FLOPS.get(device.device_kind)
