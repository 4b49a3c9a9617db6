"""Token cross-entropy."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def token_cross_entropy(
    logits: Float[Array, "b t k"], targets: Int[Array, "b t"], *, pad_id: int
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the summed cross-entropy in nats and the number of tokens it sums over.

    Padding counts in neither. A sum and a count, because words differ in length: the
    mean of per-device means is not the mean.
    """
    counted = targets != pad_id
    # Padding may lie beyond the classes; any class will do where it is masked.
    labels = jnp.where(counted, targets, 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return jnp.sum(losses * counted), jnp.sum(counted, dtype=jnp.float32)
