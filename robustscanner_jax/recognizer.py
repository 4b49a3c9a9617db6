"""Reading images from Python: `Recognizer.load().read(["sign.jpg"])`."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustscanner_jax import partition
from robustscanner_jax.compute import for_device
from robustscanner_jax.decoding import Decoded, greedy
from robustscanner_jax.models.normalise import normalise
from robustscanner_jax.models.robustscanner import Explanation, RobustScanner
from robustscanner_jax.open_weights import open_weights
from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.reading import Reader, Reading
from robustscanner_jax.weights import Weights


@functools.partial(jax.jit, static_argnames=("model", "rule"))
def _decode(
    model: RobustScanner,
    rule: Preprocessing,
    variables: Any,
    image: jax.Array,
    width: jax.Array,
) -> Decoded:
    return greedy(model, variables, _normalised(image, model, rule), width)


@functools.partial(jax.jit, static_argnames=("model", "rule"))
def _explain(
    model: RobustScanner,
    rule: Preprocessing,
    variables: Any,
    image: jax.Array,
    *inputs: jax.Array,
) -> Explanation:
    pixels = _normalised(image, model, rule)
    shown: Any = model.apply(variables, pixels, *inputs, method="explain")
    return shown


def _normalised(
    image: jax.Array, model: RobustScanner, rule: Preprocessing
) -> jax.Array:
    return normalise(image, mean=rule.mean, scale=rule.scale, dtype=model.dtype)


class Recognizer(Reader):
    """Reads word crops with one set of weights.

    Args:
      weights: network, charset and preprocessing.
      batch_size: rows computed at once; smaller batches are padded to a power of two,
        so that few shapes are compiled.
      dtype: of the computation, see `compute.compute_dtype`.
    """

    def __init__(self, weights: Weights, *, batch_size: int = 64, dtype: str = "auto"):
        self.weights = weights
        self.charset = weights.charset
        self.preprocessing = weights.preprocessing
        self.model = for_device(weights.model, dtype)
        self.mesh = partition.make_mesh(jax.local_devices())
        # Every device gets as many rows as any other.
        self.batch_size = -(-batch_size // self.mesh.size) * self.mesh.size
        self.smallest_batch = self.mesh.size
        self._variables = jax.device_put(
            weights.variables, partition.replicated(self.mesh)
        )

    @classmethod
    def load(
        cls, path: str | Path | None = None, *, batch_size: int = 64, dtype="auto"
    ) -> "Recognizer":
        """Opens a weights file, a run folder, or weights that ship.

        "small" and "tiny" ship; None is "small".

        Raises:
          ValueError: what `path` names cannot be read as either.
        """
        return cls(open_weights(path), batch_size=batch_size, dtype=dtype)

    def decode(self, image: np.ndarray, width: np.ndarray) -> Decoded:
        """Decodes uint8 rows `[b, h, w, 3]` with content widths `[b]` in pixels.

        `b` must be a multiple of the devices. Returns device arrays: the computation
        may still run.
        """
        batch = {"image": image, "width": np.asarray(width, np.int32)}
        batch = partition.put_batch(batch, ("image", "width"), self.mesh)
        return _decode(self.model, self.preprocessing, self._variables, **batch)

    def explain(self, row: tuple[np.ndarray, int]) -> tuple[Reading, Explanation]:
        """Reads one row of `resize_and_pad` and shows where the network looked.

        Returns the reading, and attention maps and the position share of each of its
        characters and the end, without the batch axis.
        """
        pixels, width = row
        fixed = self.model, self.preprocessing, self._variables
        image, widths = jnp.asarray(pixels[None]), jnp.array([width], jnp.int32)
        decoded = _decode(*fixed, image, widths)
        reading = self.to_readings(decoded, 1)[0]
        steps = min(len(reading.character_confidences) + 1, self.model.max_len)
        tokens = np.full((1, self.model.max_len), self.model.start_id, np.int32)
        tokens[0, 1:] = np.asarray(decoded.ids)[0, :-1]
        explanation = _explain(*fixed, image, widths, jnp.asarray(tokens))
        return reading, jax.tree.map(lambda x: np.asarray(x)[0, :steps], explanation)
