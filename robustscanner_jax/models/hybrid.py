"""The hybrid branch: what to look at next, given the characters so far."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, Int

from robustscanner_jax.models.recurrent import BatchSize, Carry, StackedLSTM


def embedding_init(pad_id: int):
    """Returns an initialiser: unit normal rows, zeros for the padding token."""

    def init(key, shape, dtype=jnp.float32):
        return jax.random.normal(key, shape, dtype).at[pad_id].set(0.0)

    return init


class HybridBranch(nn.Module):
    """Attention queries from the previous characters.

    Yue et al. 2020, section "Hybrid Branch": character embedding and a two-layer LSTM.
    The queries carry context, so they drift on text without any; the position branch
    is there for that.

    Attributes:
      num_tokens: rows of the embedding, special tokens included.
      pad_id: its row is zero at the start and gets no gradient.
      width: of embedding, LSTM and queries.
      dtype: of the computation.
      unroll: of the recurrence, see `StackedLSTM`.
    """

    num_tokens: int
    pad_id: int
    width: int = 128
    dtype: DTypeLike = jnp.float32
    unroll: int = 1

    def setup(self):
        self.embedding = self.param(
            "embedding", embedding_init(self.pad_id), (self.num_tokens, self.width)
        )
        self.lstm = StackedLSTM(self.width, dtype=self.dtype, unroll=self.unroll)

    def _embed(self, tokens: Int[Array, "*batch"]) -> Float[Array, "*batch d"]:
        rows = self.embedding[tokens]
        is_pad = (tokens == self.pad_id)[..., None]
        return jnp.where(is_pad, jax.lax.stop_gradient(rows), rows)

    def initial_carry(self, b: BatchSize) -> Carry:
        """Returns the state before the first character."""
        return self.lstm.initial_carry(b)

    def __call__(self, tokens: Int[Array, "b t"]) -> Float[Array, "b t d"]:
        """Returns the query of every step, for known previous characters."""
        return self.lstm(self._embed(tokens))

    def step(
        self, carry: Carry, token: Int[Array, "b"]
    ) -> tuple[Carry, Float[Array, "b d"]]:
        """Returns the state and the query after one more character."""
        return self.lstm.step(carry, self._embed(token))
