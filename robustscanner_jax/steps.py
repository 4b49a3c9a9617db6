"""One update, as a pure function of the state and a batch."""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from robustscanner_jax.losses import token_cross_entropy
from robustscanner_jax.models.normalise import normalise
from robustscanner_jax.models.robustscanner import RobustScanner

Metrics = dict[str, jax.Array]


class TrainState(flax.struct.PyTreeNode):
    """Everything that training changes.

    Attributes:
      step: updates attempted, the skipped ones included.
      params: float32.
      batch_stats: running means and variances of batch norm, float32.
      opt_state: of the optimiser.
      ema_params: running average of `params`; empty when it is off.
      skipped_in_row: updates left out one after the other up to now, because loss or
        gradient were not finite, or no example of the batch counted.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema_params: Any
    skipped_in_row: jax.Array

    @property
    def variables(self) -> dict[str, Any]:
        """What evaluation uses: averaged parameters where there are any."""
        return {
            "params": self.ema_params or self.params,
            "batch_stats": self.batch_stats,
        }


def create_state(
    key: jax.Array,
    *,
    model: RobustScanner,
    tx: optax.GradientTransformation,
    image_size: tuple[int, int],
    ema: bool,
) -> TrainState:
    """Returns the state before the first update."""
    image = jnp.zeros((1, *image_size, 3), jnp.float32)
    width = jnp.full((1,), image_size[1], jnp.int32)
    tokens = jnp.full((1, model.max_len), model.start_id, jnp.int32)
    variables = model.init(key, image, width, tokens, train=False)
    params = variables["params"]
    return TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=tx.init(params),
        # Copied: the state is donated, and a buffer can be donated only once.
        ema_params=jax.tree.map(jnp.copy, params) if ema else {},
        skipped_in_row=jnp.int32(0),
    )


def gradients(
    params: Any,
    batch_stats: Any,
    batch: dict[str, jax.Array],
    *,
    model: RobustScanner,
    mean: float,
    scale: float,
    accumulate: int = 1,
    train: bool = True,
) -> tuple[Any, Any, Metrics]:
    """Returns gradients of the mean loss over the batch, batch statistics, and sums.

    With `accumulate` above 1 the batch is computed in that many micro-batches, one
    after the other, each spread over all devices. Loss and gradients are sums over all
    of them, divided once, so they are those of the whole batch, however its tokens are
    spread. Batch norm is the exception: it normalises with each micro-batch's own mean
    and variance, and its running statistics follow one micro-batch after the other.

    Args:
      params, batch_stats: of the network.
      batch: see `data.pipeline`; `accumulate` divides its rows.
      model, mean, scale: see `train_step`.
      accumulate: micro-batches.
      train: whether batch norm uses and updates statistics; False for tests.
    """
    tokens = (batch["tokens"][:, 1:] != model.pad_id).sum()
    divisor = jnp.maximum(tokens.astype(jnp.float32), 1.0)  # of the whole batch

    def loss_fn(params, batch_stats, part):
        loss_sum, batch_stats, metrics = _loss(
            params, batch_stats, part, model=model, mean=mean, scale=scale, train=train
        )
        return loss_sum / divisor, (batch_stats, metrics)

    def micro_step(batch_stats, part):
        grads, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(
            params, batch_stats, part
        )
        return grads, batch_stats, metrics

    if accumulate == 1:
        return micro_step(batch_stats, batch)
    return _accumulated(micro_step, batch_stats, batch, accumulate)


def _loss(
    params: Any,
    batch_stats: Any,
    batch: dict[str, jax.Array],
    *,
    model: RobustScanner,
    mean: float,
    scale: float,
    train: bool,
) -> tuple[Float[Array, ""], Any, Metrics]:
    """Returns the sum of the loss in nats, batch statistics, and sums for the log."""
    inputs, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
    logits, updated = model.apply(
        {"params": params, "batch_stats": batch_stats},
        normalise(batch["image"], mean=mean, scale=scale, dtype=model.dtype),
        batch["width"],
        inputs,
        train=train,
        mutable=["batch_stats"],
    )
    loss_sum, tokens = token_cross_entropy(logits, targets, pad_id=model.pad_id)
    hit = (jnp.argmax(logits, -1) == targets) & (targets != model.pad_id)
    metrics = {"loss_sum": loss_sum, "tokens": tokens, "correct": hit.sum()}
    return loss_sum, updated["batch_stats"] if train else batch_stats, metrics


def _accumulated(
    micro_step: Callable[[Any, Any], tuple[Any, Any, Metrics]],
    batch_stats: Any,
    batch: dict[str, jax.Array],
    accumulate: int,
) -> tuple[Any, Any, Metrics]:
    """Returns what `gradients` does, from so many micro-batches one after the other."""

    def scan_body(carry, part):
        sums, before = carry
        grads, after, metrics = micro_step(before, part)
        counts = metrics["tokens"] > 0  # or it is filler alone, as in `train_step`
        batch_stats = jax.tree.map(
            lambda new, old: jnp.where(counts, new, old), after, before
        )
        return (jax.tree.map(jnp.add, sums, (grads, metrics)), batch_stats), None

    parts = jax.tree.map(lambda x: _interleaved(x, accumulate), batch)
    first = jax.tree.map(lambda x: x[0], parts)
    shapes = jax.eval_shape(micro_step, batch_stats, first)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (shapes[0], shapes[2]))
    (sums, batch_stats), _ = jax.lax.scan(scan_body, (zeros, batch_stats), parts)
    grads, metrics = sums
    return grads, batch_stats, metrics


def _interleaved(rows: jax.Array, parts: int) -> jax.Array:
    """Returns `[parts, b / parts, ...]`: part p has every row r with r % parts == p.

    So that a batch split over devices in contiguous blocks stays where it is: every
    device has its share of every part.
    """
    return jnp.moveaxis(rows.reshape(-1, parts, *rows.shape[1:]), 1, 0)


def average_decay(updates: Int[Array, ""], decay: float) -> Float[Array, ""]:
    """Returns the decay of the average after so many updates.

    It rises to `decay`, so that an average over 10,000 updates does not hold the random
    start for as long.
    """
    return jnp.minimum(decay, (1 + updates) / (10 + updates))


def _updates_before(state: TrainState) -> Int[Array, ""]:
    """Returns the updates that were applied, where the optimiser counts them."""
    counts = optax.tree.get_all_with_path(state.opt_state, "count")
    return counts[0][1] if counts else state.step


def _averaged(state: TrainState, params: Any, ema_decay: float) -> Any:
    """Returns the running average after an update to `params`."""
    decay = average_decay(_updates_before(state), ema_decay)
    return jax.tree.map(
        lambda old, new: decay * old + (1 - decay) * new, state.ema_params, params
    )


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    learning_rate: Float[Array, ""],
    *,
    model: RobustScanner,
    tx: optax.GradientTransformation,
    mean: float,
    scale: float,
    ema_decay: float,
    accumulate: int = 1,
) -> tuple[TrainState, Metrics]:
    """Applies one update, or none where loss or gradient are not finite.

    Nor is there one where the batch has no example that counts: its images are filler,
    which batch norm must not take for the data, and momentum would move parameters.

    Args:
      state: donated by the caller; do not read it after the call.
      batch: see `data.pipeline`.
      learning_rate: of this update, for an optimiser that is given it.
      model, tx: static; bound once by the caller.
      mean, scale: of the pixels, see `Preprocessing`.
      ema_decay: of the running average of the parameters, per update, see
        `average_decay`; 0 is off.
      accumulate: micro-batches that the batch is computed in, see `gradients`.

    Returns the next state, and sums over the global batch (divide on the host): `rows`
    (examples that count), `skipped` (1 where no update was applied, else 0), and of an
    applied update, else 0, `loss_sum` in nats, `tokens`, `correct` (tokens whose
    likeliest class is right, teacher forced) and `grad_norm`.
    """
    grads, batch_stats, metrics = gradients(
        state.params,
        state.batch_stats,
        batch,
        model=model,
        mean=mean,
        scale=scale,
        accumulate=accumulate,
    )
    metrics["grad_norm"] = optax.tree.norm(grads)
    updates, opt_state = optax.with_extra_args_support(tx).update(
        grads, state.opt_state, state.params, learning_rate=learning_rate
    )
    params: Any = optax.apply_updates(state.params, updates)
    if not model.train_backbone:  # decay and momentum move it without a gradient
        params = {**params, "backbone": state.params["backbone"]}
    proposed = state.replace(
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema_params=_averaged(state, params, ema_decay) if ema_decay else {},
    )
    finite = jnp.isfinite(metrics["loss_sum"]) & jnp.isfinite(metrics["grad_norm"])
    applied = finite & (metrics["tokens"] > 0)
    state = jax.tree.map(
        lambda new, old: jnp.where(applied, new, old), proposed, state
    ).replace(
        step=state.step + 1,
        skipped_in_row=jnp.where(applied, 0, state.skipped_in_row + 1),
    )
    # Zero, and not what was found: one NaN would be all that is left of a mean.
    metrics = {name: jnp.where(applied, x, 0) for name, x in metrics.items()}
    metrics["rows"] = batch["weight"].sum()
    metrics["skipped"] = 1 - applied.astype(jnp.int32)
    return state, metrics
