"""The position enhancement branch: where the n-th character is, whatever the text."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from robustscanner_jax.models.convolution import same_conv
from robustscanner_jax.models.recurrent import StackedLSTM


class PositionAwareModule(nn.Module):
    """Gives every cell a sense of how far into the text it lies.

    Yue et al. 2020, section "Position Enhancement Branch": an LSTM along each row of
    the map counts from left to right, two convolutions mix the rows.
    """

    width: int = 128
    dtype: DTypeLike = jnp.float32
    unroll: int = 1
    training_factors: DTypeLike | None = None

    @nn.compact
    def __call__(self, keys: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
        b, h, w, d = keys.shape
        rows = StackedLSTM(
            self.width, dtype=self.dtype, unroll=self.unroll, name="lstm"
        )(keys.reshape(b * h, w, d))
        mixed = rows.reshape(b, h, w, self.width)
        mixed = nn.relu(self._mix("mix1")(mixed))
        return self._mix("mix2")(mixed)

    def _mix(self, name: str) -> nn.Conv:
        return same_conv(
            self.width,
            3,
            training_factors=self.training_factors,
            dtype=self.dtype,
            name=name,
        )


class PositionBranch(nn.Module):
    """Attention queries from the step index alone, and the map that they read.

    Attributes:
      num_positions: rows of the embedding; one more than the decoding steps, as in the
        published checkpoints.
      width: of queries and keys.
      dtype: of the computation.
      unroll: of the recurrence, see `StackedLSTM`.
      training_factors: of the convolutions, see `same_conv`.
    """

    num_positions: int
    width: int = 128
    dtype: DTypeLike = jnp.float32
    unroll: int = 1
    training_factors: DTypeLike | None = None

    def setup(self):
        self.embedding = self.param(
            "embedding",
            nn.initializers.normal(1.0),
            (self.num_positions, self.width),
        )
        self.position_aware = PositionAwareModule(
            self.width,
            dtype=self.dtype,
            unroll=self.unroll,
            training_factors=self.training_factors,
        )

    def __call__(
        self, keys: Float[Array, "b h w d"], num_steps: int
    ) -> tuple[Float[Array, "b t d"], Float[Array, "b h w d"]]:
        """Returns the queries of all steps and the position-aware keys."""
        b = keys.shape[0]
        queries = self.embedding[None, :num_steps].astype(self.dtype)
        return jnp.tile(queries, (b, 1, 1)), self.position_aware(keys)
