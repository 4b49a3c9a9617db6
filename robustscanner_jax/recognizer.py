"""Reading images from Python: `Recognizer.load().read("sign.jpg").text`."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustscanner_jax import partition
from robustscanner_jax.compute import ComputeDtype, for_device
from robustscanner_jax.decoding import Decoded, greedy
from robustscanner_jax.image_like import ImageError, ImageLike
from robustscanner_jax.models.normalise import normalise
from robustscanner_jax.models.robustscanner import Explanation, RobustScanner
from robustscanner_jax.open_weights import open_weights
from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.reading import Reader, Reading, check_batch_size
from robustscanner_jax.views import View, Views
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
      dtype: of the computation: "float32", "bfloat16", or "auto", which is bfloat16 on
        accelerators and float32 on CPU.

    Raises:
      ValueError: `batch_size` is below 1, or there is no such `dtype`.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        batch_size: int = 64,
        dtype: ComputeDtype | str = "auto",
    ):
        check_batch_size(batch_size)
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
        cls,
        path: str | Path | None = None,
        *,
        allowlist: str | None = None,
        batch_size: int = 64,
        dtype: ComputeDtype | str = "auto",
    ) -> "Recognizer":
        """Opens a weights file, a run folder, or weights that ship.

        "small" and "tiny" ship; None is "small". `load_artefact` opens an export.

        Args:
          path: file, folder or name.
          allowlist: characters that may be read, see `allowlist.restrict`; None allows
            all.
          batch_size, dtype: see the class.

        Raises:
          ValueError: what `path` names cannot be read as either, or an argument is not
            what it or the class takes.
        """
        weights = open_weights(path, allowlist)
        return cls(weights, batch_size=batch_size, dtype=dtype)

    def decode(self, image: np.ndarray, width: np.ndarray) -> Decoded:
        """Decodes uint8 rows `[b, h, w, 3]` with content widths `[b]` in pixels.

        `b` must be a multiple of the devices. Returns device arrays: the computation
        may still run.
        """
        batch = {"image": image, "width": np.asarray(width, np.int32)}
        batch = partition.put_batch(batch, ("image", "width"), self.mesh)
        return _decode(self.model, self.preprocessing, self._variables, **batch)

    def explain(
        self,
        image: ImageLike,
        *,
        rotate_tall: float | None = None,
        look_closer: bool = False,
    ) -> tuple[Reading, Explanation]:
        """Reads one image and shows where the network looked.

        Args:
          image, rotate_tall, look_closer: as in `read`.

        Returns:
          The reading, and float32 arrays without the batch axis, a step for each of its
          characters and one for the end (missing where the text is as long as the
          decoder): both branches' attention over the cells of the map, `[t, h, w]`,
          and the position's share of the features, `[t]` in [0, 1].

        Raises:
          ImageError: the image cannot be read.
          TypeError: it is no image of any kind.
          ValueError: `rotate_tall` or `look_closer` is not what `Views` takes.
        """
        views = Views(rotate_tall=rotate_tall, look_closer=look_closer)
        return self.explain_view(self.view_of(image, views))

    def view_of(self, image: ImageLike, views: Views) -> View:
        """Returns the view of an image whose reading counts.

        Raises:
          ImageError: the image cannot be read.
          TypeError: it is no image of any kind.
        """
        found = self.views_of(image, "image", views)
        if isinstance(found, ImageError):
            raise found
        if len(found) == 1:
            return found[0]
        ((_, counted),) = self.read_crops([found])
        return counted

    def explain_view(self, view: View) -> tuple[Reading, Explanation]:
        """Reads one view of a crop and shows where the network looked.

        Returns what `explain` returns.
        """
        pixels, width = view.row
        fixed = self.model, self.preprocessing, self._variables
        image, widths = jnp.asarray(pixels[None]), jnp.array([width], jnp.int32)
        decoded = _decode(*fixed, image, widths)
        ids = np.asarray(decoded.ids)
        tokens = np.full((1, self.model.max_len), self.model.start_id, np.int32)
        tokens[:, 1:] = ids[:, :-1]
        explanation = _explain(*fixed, image, widths, jnp.asarray(tokens))
        spelled = self.charset.characters_of(ids[0].tolist())
        steps = [step for step, _ in spelled]
        end = self.charset.length(ids[0].tolist())
        if end < self.model.max_len:
            steps.append(end)
        reading = self.to_readings(decoded, 1)[0].in_view(view)
        return reading, jax.tree.map(lambda x: np.asarray(x)[0, steps], explanation)
