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

    def position_share(
        self, hybrid: Float[Array, "b t v"], position: Float[Array, "b t v"]
    ) -> Float[Array, "b t"]:
        """Returns how much of the mixture comes from the position glimpse, in [0, 1].

        The linear map is a sum of two parts, one for each glimpse; this is the norm of
        the position part over the sum of both norms. For pictures and reports.
        """
        kernel = self.get_variable("params", "mix")["kernel"]
        of_hybrid, of_position = jnp.split(kernel, 2, axis=0)
        hybrid_part = jnp.linalg.norm(hybrid @ of_hybrid, axis=-1)
        position_part = jnp.linalg.norm(position @ of_position, axis=-1)
        return position_part / (hybrid_part + position_part)
