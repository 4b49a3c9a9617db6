"""Reading images from Python: `Recognizer.load().read(["sign.jpg"])`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from robustscanner_jax import config as config_lib
from robustscanner_jax import partition
from robustscanner_jax.checkpoint import restore_variables
from robustscanner_jax.data.images import decode_image
from robustscanner_jax.decoding import Decoded, greedy
from robustscanner_jax.models.normalise import normalise
from robustscanner_jax.preprocessing import resize_and_pad
from robustscanner_jax.weights import Weights, expected_shapes, load_weights, unflatten

# A path, a PIL image, or an array: [h, w, 3] RGB or [h, w] grey, uint8.
ImageLike = str | Path | Image.Image | np.ndarray
SHIPPED_WEIGHTS = Path(__file__).parent / "weights" / "default.safetensors"


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was read from one image.

    Attributes:
      text: empty where nothing was read.
      confidence: probability of the whole text, in [0, 1].
      character_confidences: probability of each character, in [0, 1].
    """

    text: str
    confidence: float
    character_confidences: tuple[float, ...]


def compute_dtype(name: str) -> Any:
    """Returns the dtype of "float32", "bfloat16" or "auto".

    "auto" is bfloat16 on accelerators and float32 on CPU, where bfloat16 is slower.
    """
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)


class Recognizer:
    """Reads word crops with one set of weights.

    Args:
      weights: network, charset and preprocessing.
      batch_size: rows computed at once; smaller batches are padded to a power of two,
        so that few shapes are compiled.
      dtype: of the computation, see `compute_dtype`.
    """

    def __init__(self, weights: Weights, *, batch_size: int = 64, dtype: str = "auto"):
        self.weights = weights
        self.model = weights.model.clone(dtype=compute_dtype(dtype))
        self.mesh = partition.make_mesh(jax.local_devices())
        # Every device gets as many rows as any other.
        self.batch_size = -(-batch_size // self.mesh.size) * self.mesh.size
        self._variables = jax.device_put(
            weights.variables, partition.replicated(self.mesh)
        )

    @classmethod
    def load(
        cls, path: str | Path | None = None, *, batch_size: int = 64, dtype="auto"
    ) -> "Recognizer":
        """Opens a weights file, a run folder, or (None) the weights that ship.

        Raises:
          ValueError: what `path` names cannot be read as either.
        """
        if path is None:
            path = SHIPPED_WEIGHTS
        path = Path(path)
        if not path.exists():
            raise ValueError(
                f"{path}: not found; expected a weights file or a run folder"
            )
        weights = load_run(path) if path.is_dir() else load_weights(path)
        return cls(weights, batch_size=batch_size, dtype=dtype)

    def decode(self, image: np.ndarray, width: np.ndarray) -> Decoded:
        """Decodes uint8 rows `[b, h, w, 3]` with content widths `[b]` in pixels.

        `b` must be a multiple of the devices. Returns device arrays: the computation
        may still run.
        """
        batch = {"image": image, "width": np.asarray(width, np.int32)}
        batch = partition.put_batch(batch, ("image", "width"), self.mesh)
        rule = self.weights.preprocessing
        pixels = normalise(
            batch["image"], mean=rule.mean, scale=rule.scale, dtype=self.model.dtype
        )
        return greedy(self.model, self._variables, pixels, batch["width"])

    def to_readings(self, decoded: Decoded, count: int) -> list[Reading]:
        """Returns the first `count` rows as texts."""
        ids = np.asarray(decoded.ids)[:count].tolist()
        probabilities = np.asarray(decoded.probabilities)[:count].astype(np.float64)
        charset = self.weights.charset
        return [
            Reading(
                text=charset.to_text(row),
                confidence=float(p.prod()),
                character_confidences=tuple(p[: charset.length(row)].tolist()),
            )
            for row, p in zip(ids, probabilities, strict=True)
        ]

    def read(self, images: Sequence[ImageLike]) -> list[Reading]:
        """Returns one reading an image, in order.

        Args:
          images: word crops: paths, PIL images, or uint8 arrays `[h, w, 3]` RGB or
            `[h, w]` grey.

        Raises:
          ValueError: one of them cannot be read; the message names it.
        """
        readings: list[Reading] = []
        for start in range(0, len(images), self.batch_size):
            chunk = images[start : start + self.batch_size]
            rows = [
                self._prepare(image, f"image {start + i}")
                for i, image in enumerate(chunk)
            ]
            readings += self.read_rows(rows)
        return readings

    def read_rows(self, rows: Sequence[tuple[np.ndarray, int]]) -> list[Reading]:
        """Reads what `resize_and_pad` returns; at most `batch_size` rows."""
        filler = [rows[0]] * (self._bucket(len(rows)) - len(rows))
        pixels, widths = zip(*rows, *filler, strict=True)
        return self.to_readings(self.decode(np.stack(pixels), widths), len(rows))

    def _bucket(self, count: int) -> int:
        size = self.mesh.size
        while size < count:
            size *= 2
        return min(size, self.batch_size)

    def _prepare(self, image: ImageLike, name: str) -> tuple[np.ndarray, int]:
        if isinstance(image, str | Path):
            name = str(image)
        try:
            return resize_and_pad(to_bgr(image), self.weights.preprocessing)
        except (ValueError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ValueError(f"{name}: {reason}") from error


def to_bgr(image: ImageLike) -> np.ndarray:
    """Returns BGR pixels `[h, w, 3]` uint8 of anything `Recognizer.read` takes."""
    if isinstance(image, str | Path):
        return decode_image(Path(image).read_bytes())
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    return np.ascontiguousarray(image[..., ::-1])


def load_run(workdir: Path) -> Weights:
    """Returns the newest checkpoint of a run folder as weights.

    Raises:
      ValueError: no run folder, or no complete checkpoint in it.
    """
    config = config_lib.from_json(workdir / "config.json")
    charset = config_lib.make_charset(config)
    model = config_lib.make_model(config, charset)
    shapes = {
        path: jax.ShapeDtypeStruct(shape, jnp.float32)
        for path, shape in expected_shapes(model).items()
    }
    variables, step = restore_variables(
        workdir,
        unflatten(shapes),
        sharding=jax.sharding.SingleDeviceSharding(jax.local_devices()[0]),
    )
    return Weights(
        model,
        jax.tree.map(np.asarray, variables),
        charset,
        config_lib.make_preprocessing(config),
        {"run": str(workdir), "step": step},
    )
