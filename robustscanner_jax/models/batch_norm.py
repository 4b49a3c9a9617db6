"""Batch normalisation with float32 statistics over the global batch."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from robustscanner_jax.models.precision import wide


class BatchNorm(nn.Module):
    """Normalises each channel over batch, height and width.

    Padded columns of the image count like any other, as in the published
    implementations. Under `jit` on a sharded batch the statistics span all devices.

    Attributes:
      unbiased_variance: which batch variance the running average takes. PyTorch keeps
        the unbiased one, Paddle the biased one; both normalise with the biased one.
        `nn.BatchNorm` knows only the latter, hence this module.
      momentum: share of the old running value kept by an update; PyTorch's 0.1 is 0.9.
      epsilon: added to the variance.
      dtype: of the output; statistics are float32, or wider with it.
    """

    unbiased_variance: bool = True
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b h w c"]:
        channels = x.shape[-1]
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)

        x = x.astype(wide(x.dtype))
        if train:
            mean = x.mean(axis=(0, 1, 2))
            # One pass over x: both sums fuse into a single read of the activations.
            var = jnp.maximum((x * x).mean(axis=(0, 1, 2)) - mean * mean, 0.0)
            if not self.is_initializing():
                count = x.size // channels
                kept = (
                    var * (count / max(count - 1, 1)) if self.unbiased_variance else var
                )
                for running, value in ((running_mean, mean), (running_var, kept)):
                    value = jax.lax.stop_gradient(value)
                    running.value = (
                        self.momentum * running.value + (1 - self.momentum) * value
                    )
        else:
            mean, var = running_mean.value, running_var.value

        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        offset = bias - mean * factor
        factor, offset = factor[None, None, None, :], offset[None, None, None, :]
        return (x * factor + offset).astype(self.dtype)
