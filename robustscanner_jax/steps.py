"""One update, as a pure function of the state and a batch."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

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
        gradient were not finite.
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


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    *,
    model: RobustScanner,
    tx: optax.GradientTransformation,
    mean: float,
    scale: float,
    ema_decay: float,
) -> tuple[TrainState, Metrics]:
    """Applies one update, or none where loss or gradient are not finite.

    Args:
      state: donated by the caller; do not read it after the call.
      batch: see `data.pipeline`.
      model, tx: static; bound once by the caller.
      mean, scale: of the pixels, see `Preprocessing`.
      ema_decay: of the running average of the parameters, per update; 0 is off.

    Returns the next state, and sums over the global batch (divide on the host):
    `loss_sum` in nats, `tokens`, `correct` (tokens whose likeliest class is right,
    teacher forced), `rows` (examples that count), `grad_norm` and `skipped`.
    """
    inputs, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
    image = normalise(batch["image"], mean=mean, scale=scale, dtype=model.dtype)

    def loss_fn(params):
        logits, updated = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            image,
            batch["width"],
            inputs,
            train=True,
            mutable=["batch_stats"],
        )
        loss_sum, tokens = token_cross_entropy(logits, targets, pad_id=model.pad_id)
        hit = (jnp.argmax(logits, -1) == targets) & (targets != model.pad_id)
        metrics = {"loss_sum": loss_sum, "tokens": tokens, "correct": hit.sum()}
        return loss_sum / jnp.maximum(tokens, 1.0), (updated["batch_stats"], metrics)

    grads, (batch_stats, metrics) = jax.grad(loss_fn, has_aux=True)(state.params)
    grad_norm = optax.tree.norm(grads)
    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema_params = jax.tree.map(
        lambda old, new: ema_decay * old + (1 - ema_decay) * new,
        state.ema_params,
        params if ema_decay else {},
    )
    finite = jnp.isfinite(metrics["loss_sum"]) & jnp.isfinite(grad_norm)
    proposed = (params, batch_stats, opt_state, ema_params)
    current = (state.params, state.batch_stats, state.opt_state, state.ema_params)
    params, batch_stats, opt_state, ema_params = jax.tree.map(
        lambda new, old: jnp.where(finite, new, old), proposed, current
    )
    state = TrainState(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        ema_params=ema_params,
        skipped_in_row=jnp.where(finite, 0, state.skipped_in_row + 1),
    )
    metrics |= {
        "rows": batch["weight"].sum(),
        "grad_norm": grad_norm,
        "skipped": 1 - finite.astype(jnp.int32),
    }
    return state, metrics
