"""Dynamic fusion of the two glimpses."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float


class DynamicFusion(nn.Module):
    """Mixes the hybrid and the position glimpse with a learned gate.

    Yue et al. 2020, section "Dynamically-Fusing Module". One linear map of both
    glimpses gives content and gate, per step and per channel (a gated linear unit, as
    in the published implementations).
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, hybrid: Float[Array, "b t v"], position: Float[Array, "b t v"]
    ) -> Float[Array, "b t v"]:
        both = jnp.concatenate([hybrid, position], axis=-1)
        both = nn.Dense(both.shape[-1], dtype=self.dtype, name="mix")(both)
        content, gate = jnp.split(both, 2, axis=-1)
        return content * nn.sigmoid(gate)
