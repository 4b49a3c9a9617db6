"""The whole network: an image and the characters so far give the next character.

Yue et al. 2020, "RobustScanner: Dynamically Enhancing Positional Clues for Robust Text
Recognition" (arXiv:2007.07542). All methods are pure functions of (variables, inputs).
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int, Real

from robustscanner_jax.models.attention import (
    MaskRounding,
    attention_weights,
    read_glimpses,
    valid_cells,
)
from robustscanner_jax.models.fusion import DynamicFusion
from robustscanner_jax.models.hybrid import HybridBranch
from robustscanner_jax.models.position import PositionBranch
from robustscanner_jax.models.recurrent import Carry
from robustscanner_jax.models.resnet31 import ResNet31

# Factor on the backbone's channels. The decoder's 128 channels stay: they cost little,
# and attention needs them.
CHANNEL_SCALE = {"base": 1.0, "small": 0.5, "tiny": 0.25, "nano": 0.125}


class Encoded(NamedTuple):
    """What decoding needs of an image; the same for every step."""

    keys: Float[Array, "b s d"]  # reduced map, read by the hybrid branch
    values: Float[Array, "b s v"]  # the backbone's map, the value of both attentions
    valid: Bool[Array, "b s"]  # content, not padding
    position_glimpses: Float[Array, "b t v"]  # independent of the text


class Explanation(NamedTuple):
    """Where the network looked, per step; for pictures."""

    hybrid_attention: Float[Array, "b t s"]
    position_attention: Float[Array, "b t s"]
    # Share of the position glimpse in the fused features, in [0, 1].
    position_share: Float[Array, "b t"]


class RobustScanner(nn.Module):
    """ResNet31, hybrid branch, position branch, dynamic fusion, one classifier.

    Attributes:
      num_classes: outputs of the classifier.
      num_tokens: rows of the character embedding; may exceed `num_classes`, where the
        padding token is never predicted.
      start_id, end_id, pad_id: special tokens; start and end may be the same.
      max_len: decoding steps, the end token included.
      width: key of `CHANNEL_SCALE`.
      mask_rounding: of the content width in columns of the map, see `valid_cells`.
      unbiased_variance: see `BatchNorm`.
      use_hybrid, use_position: switch a branch's glimpse off, for ablation: zeros take
        its place.
      dtype: of the computation; parameters, statistics, softmax stay float32.
    """

    num_classes: int = 93
    num_tokens: int = 93
    start_id: int = 90
    end_id: int = 90
    pad_id: int = 91
    max_len: int = 30
    width: str = "base"
    decoder_width: int = 128
    mask_rounding: MaskRounding = "ceil"
    unbiased_variance: bool = True
    use_hybrid: bool = True
    use_position: bool = True
    dtype: DTypeLike = jnp.float32

    def setup(self):
        self.backbone = ResNet31(
            CHANNEL_SCALE[self.width], self.unbiased_variance, self.dtype
        )
        self.reduction = nn.Conv(self.decoder_width, (1, 1), dtype=self.dtype)
        self.hybrid = HybridBranch(
            self.num_tokens, self.pad_id, self.decoder_width, self.dtype
        )
        self.position = PositionBranch(self.max_len + 1, self.decoder_width, self.dtype)
        self.fusion = DynamicFusion(self.dtype)
        self.classifier = nn.Dense(self.num_classes, dtype=self.dtype)

    def _maps(self, image, width, *, train: bool):
        """Returns values, keys `[b, h, w, c]` and the flags of their valid cells."""
        values = self.backbone(image, train=train)
        valid = valid_cells(
            width,
            image_width=image.shape[2],
            map_size=values.shape[1:3],
            rounding=self.mask_rounding,
        )
        return values, self.reduction(values), valid

    def encode(
        self, image: Float[Array, "b h w 3"], width: Real[Array, "b"], *, train: bool
    ) -> Encoded:
        """Returns everything about the images that decoding needs.

        Args:
          image: normalised pixels, about [-1, 1].
          width: content width in pixels; what lies right of it is padding.
          train: whether batch norm uses and updates the batch's statistics.
        """
        values, keys, valid = self._maps(image, width, train=train)
        queries, position_keys = self.position(keys, self.max_len)
        b, h, w, v = values.shape
        values = values.reshape(b, h * w, v)
        weights = attention_weights(queries, position_keys.reshape(b, h * w, -1), valid)
        return Encoded(
            keys.reshape(b, h * w, -1), values, valid, read_glimpses(weights, values)
        )

    def _glimpse(self, encoded: Encoded, query: Float[Array, "b t d"]):
        weights = attention_weights(
            query.astype(encoded.keys.dtype), encoded.keys, encoded.valid
        )
        return read_glimpses(weights, encoded.values), weights

    def _fuse(
        self, hybrid: Float[Array, "b t v"], position: Float[Array, "b t v"]
    ) -> Float[Array, "b t v"]:
        if not self.use_hybrid:
            hybrid = jnp.zeros_like(hybrid)
        if not self.use_position:
            position = jnp.zeros_like(position)
        return self.fusion(hybrid, position)

    def __call__(
        self,
        image: Float[Array, "b h w 3"],
        width: Real[Array, "b"],
        tokens: Int[Array, "b t"],
        *,
        train: bool,
    ) -> Float[Array, "b t k"]:
        """Returns float32 logits of the next character at every step, teacher forced.

        Args:
          image: normalised pixels.
          width: content width in pixels.
          tokens: the previous character of each step; the first is the start token.
            At most `max_len` steps.
          train: whether batch norm uses and updates the batch's statistics.
        """
        t = tokens.shape[1]
        if t > self.max_len:
            raise ValueError(f"expected at most {self.max_len} steps, got {t} tokens")
        encoded = self.encode(image, width, train=train)
        hybrid_glimpses, _ = self._glimpse(encoded, self.hybrid(tokens))
        fused = self._fuse(hybrid_glimpses, encoded.position_glimpses[:, :t])
        return self.classifier(fused).astype(jnp.float32)

    def initial_carry(self, b: int) -> Carry:
        """Returns the decoder's state before the first character."""
        return self.hybrid.initial_carry(b)

    def step(
        self,
        encoded: Encoded,
        carry: Carry,
        token: Int[Array, "b"],
        index: Int[Array, ""],
    ) -> tuple[Carry, Float[Array, "b k"]]:
        """Returns the next state and the float32 logits of decoding step `index`."""
        carry, query = self.hybrid.step(carry, token)
        hybrid_glimpse, _ = self._glimpse(encoded, query[:, None, :])
        position_glimpse = jnp.take(encoded.position_glimpses, index, axis=1)
        fused = self._fuse(hybrid_glimpse, position_glimpse[:, None, :])
        return carry, self.classifier(fused)[:, 0].astype(jnp.float32)
