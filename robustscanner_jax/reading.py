"""Reading images, whatever computes: the part shared by live and exported networks.

No JAX in here: an exported network is read where JAX is not installed.
"""

import abc
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from robustscanner_jax import rotation
from robustscanner_jax.charset import UNKNOWN_TEXT, Charset
from robustscanner_jax.data.images import decode_image
from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.rotation import Row, crop_rows

# A path, a PIL image, or an array: [h, w, 3] RGB or [h, w] grey, uint8.
ImageLike = str | Path | Image.Image | np.ndarray


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

    @property
    def characters(self) -> tuple[str, ...]:
        """The text, a step an entry: `<UKN>` is one, where the network says unknown."""
        unknown = re.escape(UNKNOWN_TEXT)
        return tuple(re.findall(f"{unknown}|.", self.text, re.DOTALL))


class DecodedRows(NamedTuple):
    """Greedy decoding of a batch, on the host.

    Attributes:
      ids: the likeliest token of each step, `[b, t]` int32; padding after the end.
      probabilities: of these ids, `[b, t]` float32 in [0, 1]; 1 after the end.
    """

    ids: np.ndarray
    probabilities: np.ndarray


class Reader(abc.ABC):
    """Reads word crops; what computes is up to the subclass.

    Attributes:
      charset: of the ids that `decode` returns.
      preprocessing: from a crop's pixels to a row of `decode`.
      batch_size: most rows computed at once.
      smallest_batch: fewer rows are padded to so many; beyond, the sizes of batches
        double up to `batch_size`, so that few shapes are compiled. 0: never padded.
    """

    charset: Charset
    preprocessing: Preprocessing
    batch_size: int
    smallest_batch: int = 1

    @abc.abstractmethod
    def decode(self, image: np.ndarray, width: np.ndarray) -> Any:
        """Decodes uint8 rows `[b, h, w, 3]` with content widths `[b]` in pixels.

        Returns ids and probabilities as `DecodedRows`, or as device arrays of these
        names and shapes.
        """

    def to_readings(self, decoded: Any, count: int) -> list[Reading]:
        """Returns the first `count` rows as texts."""
        ids = np.asarray(decoded.ids)[:count].tolist()
        probabilities = np.asarray(decoded.probabilities)[:count].astype(np.float64)
        return [
            Reading(
                text=self.charset.to_text(row),
                confidence=float(p.prod()),
                character_confidences=tuple(p[: self.charset.length(row)].tolist()),
            )
            for row, p in zip(ids, probabilities, strict=True)
        ]

    def read(
        self, images: Sequence[ImageLike], *, rotate_tall: float | None = None
    ) -> list[Reading]:
        """Returns one reading an image, in order.

        Args:
          images: word crops: paths, PIL images, or uint8 arrays `[h, w, 3]` RGB or
            `[h, w]` grey.
          rotate_tall: crops over so many times as tall as wide are read at 90 and 270
            degrees as well, and the surest reading counts (see `rotation`); None: none.

        Raises:
          ValueError: one of them cannot be read; the message names it.
        """
        rotation.check_ratio(rotate_tall)
        readings: list[Reading] = []
        for start in range(0, len(images), self.batch_size):
            chunk = images[start : start + self.batch_size]
            crops = [
                self._prepare(image, f"image {start + i}", rotate_tall)
                for i, image in enumerate(chunk)
            ]
            readings += [reading for reading, _ in self.read_crops(crops)]
        return readings

    def read_crops(self, crops: Sequence[Sequence[Row]]) -> list[tuple[Reading, int]]:
        """Reads crops of one or several rows each, as `crop_rows` gives them.

        Returns for each the reading that counts, and which of its rows that is.
        """
        rows = [row for crop in crops for row in crop]
        readings: list[Reading] = []
        for start in range(0, len(rows), self.batch_size):
            readings += self.read_rows(rows[start : start + self.batch_size])
        remaining = iter(readings)
        found = []
        for crop in crops:
            of_crop = [next(remaining) for _ in crop]
            won = rotation.best([r.character_confidences for r in of_crop])
            found.append((of_crop[won], won))
        return found

    def read_rows(self, rows: Sequence[Row]) -> list[Reading]:
        """Reads what `resize_and_pad` returns; at most `batch_size` rows."""
        filler = [rows[0]] * (self.padded_size(len(rows)) - len(rows))
        pixels, widths = zip(*rows, *filler, strict=True)
        decoded = self.decode(np.stack(pixels), np.asarray(widths, np.int32))
        return self.to_readings(decoded, len(rows))

    def padded_size(self, count: int) -> int:
        """Returns how many rows are computed where `count` are asked for."""
        if not self.smallest_batch:
            return count
        size = self.smallest_batch
        while size < count:
            size *= 2
        return min(size, self.batch_size)

    def _prepare(
        self, image: ImageLike, name: str, rotate_tall: float | None
    ) -> list[Row]:
        if isinstance(image, str | Path):
            name = str(image)
        try:
            return crop_rows(to_bgr(image), self.preprocessing, rotate_tall)
        except (ValueError, OSError) as error:
            # Pillow's own have no strerror.
            raise ValueError(
                f"{name}: {getattr(error, 'strerror', None) or error}"
            ) from error


def to_bgr(image: ImageLike) -> np.ndarray:
    """Returns BGR pixels `[h, w, 3]` uint8 of anything `Reader.read` takes."""
    if isinstance(image, str | Path):
        return decode_image(Path(image).read_bytes())
    if not isinstance(image, np.ndarray):
        # Turned as its EXIF data say, like a file.
        image = np.asarray(_eight_bits(ImageOps.exif_transpose(image)).convert("RGB"))
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    return np.ascontiguousarray(image[..., ::-1])


def _eight_bits(image: Image.Image) -> Image.Image:
    """Returns an image of 16 bits a pixel scaled as a file is, any other as it is.

    Pillow's conversion cuts values off at 255.
    """
    values = np.asarray(image) if image.mode.startswith("I") else None
    if values is None or (image.mode == "I" and values.max() < 256):
        return image
    return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
