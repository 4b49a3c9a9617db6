"""What the network computes on the way, named and laid out as in the golden files."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree, Real

from robustscanner_jax.models.precision import wide
from robustscanner_jax.models.robustscanner import RobustScanner

# The backbone's golden stages are thinned out: [b, c, h, w] -> every 16th channel, 4th
# row, 8th column.
THINNED = (
    slice(None),
    slice(None, None, 16),
    slice(None, None, 4),
    slice(None, None, 8),
)
_CAPTURED = ("__call__", "encode", "_glimpse")


def _channels_first(x: Float[Array, "b h w c"]) -> Float[Array, "b c h w"]:
    return x.transpose(0, 3, 1, 2)


@functools.partial(jax.jit, static_argnames="model")
def stage_outputs(
    model: RobustScanner,
    variables: PyTree,
    image: Float[Array, "b h w 3"],
    width: Real[Array, "b"],
    tokens: Int[Array, "b t"],
) -> dict[str, Array]:
    """Returns the outputs of the network's parts, teacher forced, in evaluation mode.

    Maps are [b, c, h, w], as published; sequences [b, t, c]. `stage_*` are thinned out.
    """
    logits, state = model.apply(
        variables,
        image,
        width,
        tokens,
        train=False,
        capture_intermediates=lambda _, method: method in _CAPTURED,
        mutable=["intermediates"],
    )
    seen = state["intermediates"]

    def output(*path: str, method: str = "__call__") -> Any:
        node = seen
        for part in path:
            node = node[part]
        return node[method][0]

    stages = {}
    backbone = "backbone"
    for name, block in (
        ("block2", "stage2_block0"),
        ("block3", "stage3_block1"),
        ("block4", "stage4_block4"),
        ("block5", "stage5_block2"),
    ):
        stages[f"stage_{name}"] = output(backbone, block)
    for name, module in (
        ("relu1_2", "stem2"),
        ("relu2", "stage2_conv"),
        ("relu3", "stage3_conv"),
        ("relu4", "stage4_conv"),
    ):
        stages[f"stage_{name}"] = nn.relu(output(backbone, module))
    stages = {name: _channels_first(x)[THINNED] for name, x in stages.items()}

    features = output(backbone)
    b, h, w, _ = features.shape
    rows = output("position", "position_aware", "lstm")
    stages |= {
        "backbone": _channels_first(features),
        "backbone_mean": features.mean((1, 2)),
        "backbone_std": features.std((1, 2)),
        "encoder": _channels_first(output("reduction")),
        "hybrid_query": output("hybrid"),
        "position_aware_rnn": _channels_first(rows.reshape(b, h, w, -1)),
        "position_aware": _channels_first(output("position", "position_aware")),
        "hybrid_glimpse": output(method="_glimpse")[0],
        "position_glimpse": output(method="encode").position_glimpses[
            :, : tokens.shape[1]
        ],
        "teacher_fused": output("fusion"),
        "teacher_logits": logits,
        "valid_width": output(method="encode").valid.reshape(b, h, w)[:, 0].sum(-1),
    }
    return stages


def golden_view(stages: dict[str, Array], key: str, golden: np.ndarray) -> np.ndarray:
    """Returns the part of a stage that a golden array holds.

    Args:
      stages: of `stage_outputs`.
      key: name of the golden array: a stage, or `stage@n` for every n-th channel.
      golden: the array; it may hold the first images only, or the first without a
        batch axis.
    """
    name, _, step = key.partition("@")
    stage = np.asarray(stages[name])
    if golden.ndim == stage.ndim - 1:  # one image
        stage = stage[0]
        channels = 0
    else:
        stage = stage[: len(golden)]
        channels = 1 if stage.ndim == 4 else stage.ndim - 1
    if step:
        index = [slice(None)] * stage.ndim
        index[channels] = slice(None, None, int(step))
        stage = stage[tuple(index)]
    return stage


def cross_entropies(
    logits: Float[Array, "b t k"], tokens: Int[Array, "b t"], *, pad_id: int
) -> Float[Array, "b t1"]:
    """Returns the loss of each step as published: outputs[:-1] against tokens[1:]."""
    targets = tokens[:, 1:]
    counted = targets != pad_id
    log_probabilities = jax.nn.log_softmax(logits[:, :-1].astype(wide(logits.dtype)))
    labels = jnp.where(counted, targets, 0)[..., None]
    losses = -jnp.take_along_axis(log_probabilities, labels, axis=-1)[..., 0]
    return jnp.where(counted, losses, 0.0)
