"""The whole network: an image and the characters so far give the next character.

Yue et al. 2020, "RobustScanner: Dynamically Enhancing Positional Clues for Robust Text
Recognition" (arXiv:2007.07542). All methods are pure functions of (variables, inputs).
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Int, Real

from robustscanner_jax.models.attention import (
    MaskRounding,
    attention_weights,
    read_glimpses,
    valid_cells,
)
from robustscanner_jax.models.convolution import same_conv
from robustscanner_jax.models.fusion import DynamicFusion
from robustscanner_jax.models.hybrid import HybridBranch
from robustscanner_jax.models.position import PositionBranch
from robustscanner_jax.models.precision import wide
from robustscanner_jax.models.recurrent import BatchSize, Carry
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
    """Where the network looked at each step, and which branch counted; for pictures."""

    hybrid_attention: Float[Array, "b t h w"]
    position_attention: Float[Array, "b t h w"]
    position_share: Float[Array, "b t"]  # see DynamicFusion.position_share


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
      dtype: of the computation; parameters, statistics, softmax and logits stay
        float32. With float64 variables, float64 is float64 throughout.
      unroll: of the recurrences, see `StackedLSTM`; moves speed alone.
      training_factors: of the convolutions, see `same_conv`; moves speed and rounding.
      train_backbone: False has no gradient of the backbone and leaves its batch norm
        alone, in training as in use.
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
    unroll: int = 1
    training_factors: DTypeLike | None = None
    train_backbone: bool = True

    def setup(self):
        self.backbone = ResNet31(
            CHANNEL_SCALE[self.width],
            self.unbiased_variance,
            self.dtype,
            self.training_factors,
        )
        self.reduction = same_conv(
            self.decoder_width,
            1,
            training_factors=self.training_factors,
            dtype=self.dtype,
        )
        self.hybrid = HybridBranch(
            self.num_tokens, self.pad_id, self.decoder_width, self.dtype, self.unroll
        )
        self.position = PositionBranch(
            self.max_len + 1,
            self.decoder_width,
            self.dtype,
            self.unroll,
            self.training_factors,
        )
        self.fusion = DynamicFusion(self.dtype)
        # Not rounded: its products are few, and probabilities come from its sums.
        self.classifier = nn.Dense(self.num_classes, dtype=wide(self.dtype))

    def _encode(
        self, image: Float[Array, "b h w 3"], width: Real[Array, "b"], *, train: bool
    ) -> tuple[Encoded, Float[Array, "b t s"], tuple[int, int]]:
        """Returns the encoded images, the position attention, and the map's size."""
        values = self.backbone(image, train=train and self.train_backbone)
        if not self.train_backbone:
            values = jax.lax.stop_gradient(values)
        b, h, w, v = values.shape
        valid = valid_cells(
            width,
            image_width=image.shape[2],
            map_size=(h, w),
            rounding=self.mask_rounding,
        )
        keys = self.reduction(values)
        queries, position_keys = self.position(keys, self.max_len)
        values = values.reshape(b, h * w, v)
        weights = attention_weights(queries, position_keys.reshape(b, h * w, -1), valid)
        glimpses = read_glimpses(weights, values)
        encoded = Encoded(keys.reshape(b, h * w, -1), values, valid, glimpses)
        return encoded, weights, (h, w)

    def encode(
        self, image: Float[Array, "b h w 3"], width: Real[Array, "b"], *, train: bool
    ) -> Encoded:
        """Returns everything about the images that decoding needs.

        Args:
          image: normalised pixels, about [-1, 1].
          width: content width in pixels; what lies right of it is padding.
          train: whether batch norm uses and updates the batch's statistics.
        """
        return self._encode(image, width, train=train)[0]

    def _glimpse(self, encoded: Encoded, query: Float[Array, "b t d"]):
        weights = attention_weights(
            query.astype(encoded.keys.dtype), encoded.keys, encoded.valid
        )
        return read_glimpses(weights, encoded.values), weights

    def _fuse(
        self, hybrid: Float[Array, "b t v"], position: Float[Array, "b t v"]
    ) -> Float[Array, "b t v"]:
        return self.fusion(*self._switched(hybrid, position))

    def _switched(
        self, hybrid: Float[Array, "b t v"], position: Float[Array, "b t v"]
    ) -> tuple[Float[Array, "b t v"], Float[Array, "b t v"]]:
        if not self.use_hybrid:
            hybrid = jnp.zeros_like(hybrid)
        if not self.use_position:
            position = jnp.zeros_like(position)
        return hybrid, position

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
        return self.decode_forced(self.encode(image, width, train=train), tokens)

    def decode_forced(
        self, encoded: Encoded, tokens: Int[Array, "b t"]
    ) -> Float[Array, "b t k"]:
        """Returns float32 logits of every step for known previous characters."""
        hybrid_glimpses, _ = self._glimpse(encoded, self.hybrid(tokens))
        position_glimpses = encoded.position_glimpses[:, : tokens.shape[1]]
        fused = self._fuse(hybrid_glimpses, position_glimpses)
        return self.classifier(fused)

    def initial_carry(self, b: BatchSize) -> Carry:
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
        return carry, self.classifier(fused)[:, 0]

    def explain(
        self,
        image: Float[Array, "b h w 3"],
        width: Real[Array, "b"],
        tokens: Int[Array, "b t"],
    ) -> Explanation:
        """Returns where both branches look and which one counts, for given tokens.

        Args:
          image: normalised pixels.
          width: content width in pixels.
          tokens: the previous character of each step; the first is the start token.
        """
        t = tokens.shape[1]
        encoded, position_weights, size = self._encode(image, width, train=False)
        hybrid, hybrid_weights = self._glimpse(encoded, self.hybrid(tokens))
        position = encoded.position_glimpses[:, :t]
        shape = (image.shape[0], t, *size)
        return Explanation(
            hybrid_weights.reshape(shape),
            position_weights[:, :t].reshape(shape),
            self.fusion.position_share(*self._switched(hybrid, position)),
        )
