"""The network and its decoding as StableHLO, for any batch size and platform."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from robustscanner_jax.decoding import greedy
from robustscanner_jax.models.normalise import normalise
from robustscanner_jax.weights import Weights, flatten, unflatten

PLATFORMS = ("cpu", "cuda", "tpu")


def build(weights: Weights) -> bytes:
    """Returns the serialised graph of `read(leaves, image, width)`.

    The weights are its first argument, by their path as in the weights file, so that
    they are stored once and the graph is small. Greedy decoding with its early exit is
    inside. It computes in float32 on every platform: the products run at the highest
    precision, where a GPU or TPU would otherwise take fewer bits. (In bfloat16 the
    answers would depend on the size of the batch, and could not be proven equal.)
    """
    model = weights.model.clone(dtype=jnp.float32)
    rule = weights.preprocessing

    def read(leaves: dict[str, jax.Array], image: jax.Array, width: jax.Array) -> Any:
        pixels = normalise(image, mean=rule.mean, scale=rule.scale, dtype=model.dtype)
        return tuple(greedy(model, unflatten(leaves), pixels, width))

    (b,) = export.symbolic_shape("b", constraints=["b >= 1"])
    shapes = (
        {
            path: jax.ShapeDtypeStruct(leaf.shape, jnp.float32)
            for path, leaf in flatten(weights.variables).items()
        },
        jax.ShapeDtypeStruct((b, rule.height, rule.max_width, 3), jnp.uint8),
        jax.ShapeDtypeStruct((b,), jnp.int32),
    )
    with jax.default_matmul_precision("highest"):
        exported = export.export(jax.jit(read), platforms=PLATFORMS)(*shapes)
    return bytes(exported.serialize())
