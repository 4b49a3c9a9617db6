"""Greedy decoding: an encoded image becomes token ids and their probabilities."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree, Real

from robustscanner_jax.models.precision import wide
from robustscanner_jax.models.robustscanner import RobustScanner


class Decoded(NamedTuple):
    """What greedy decoding gives for a batch.

    Attributes:
      ids: the likeliest token of each step. After a row's end token: padding.
      probabilities: of these ids, in [0, 1]; 1 after the end token.
    """

    ids: Int[Array, "b t"]
    probabilities: Float[Array, "b t"]


class _Loop(NamedTuple):
    index: Int[Array, ""]
    carry: PyTree
    token: Int[Array, "b"]
    finished: jax.Array
    ids: Int[Array, "t b"]
    probabilities: Float[Array, "t b"]


@functools.partial(jax.jit, static_argnames=("model", "all_steps"))
def greedy(
    model: RobustScanner,
    variables: PyTree,
    image: Float[Array, "b h w 3"],
    width: Real[Array, "b"],
    *,
    all_steps: bool = False,
) -> Decoded:
    """Reads a batch of images, always taking the likeliest character.

    The LSTM's state is carried from step to step, and the position glimpses, which do
    not depend on the text, are computed once. The published implementations rerun both
    from the first character at every step; the results are the same (a test).

    Args:
      model: the network; static.
      variables: its parameters and batch statistics.
      image: normalised pixels.
      width: content width in pixels.
      all_steps: run all `model.max_len` steps and keep what comes after the end token,
        as the published implementations do. Otherwise decoding stops when every row has
        ended, and a row's result does not depend on the rest of the batch.
    """
    b = image.shape[0]
    encoded = model.apply(variables, image, width, train=False, method="encode")
    steps = model.max_len

    def advance(loop: _Loop) -> _Loop:
        carry, logits = model.apply(
            variables, encoded, loop.carry, loop.token, loop.index, method="step"
        )
        logits = jnp.asarray(logits)
        token = jnp.argmax(logits, axis=-1).astype(jnp.int32)
        probability = jnp.max(jax.nn.softmax(logits, axis=-1), axis=-1)
        finished = loop.finished | (token == model.end_id)
        if not all_steps:
            token = jnp.where(loop.finished, model.pad_id, token)
            probability = jnp.where(loop.finished, 1.0, probability)
        return _Loop(
            loop.index + 1,
            carry,
            token,
            finished,
            loop.ids.at[loop.index].set(token),
            loop.probabilities.at[loop.index].set(probability),
        )

    def unfinished(loop: _Loop):
        return (loop.index < steps) & (all_steps | ~loop.finished.all())

    start = _Loop(
        index=jnp.int32(0),
        carry=model.apply(variables, b, method="initial_carry"),
        token=jnp.full(b, model.start_id, jnp.int32),
        finished=jnp.zeros(b, bool),
        ids=jnp.full((steps, b), model.pad_id, jnp.int32),
        probabilities=jnp.ones((steps, b), wide(model.dtype)),
    )
    end = jax.lax.while_loop(unfinished, advance, start)
    return Decoded(end.ids.T, end.probabilities.T)
