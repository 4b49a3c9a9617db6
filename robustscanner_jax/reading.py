"""Reading images, whatever computes: the part shared by live and exported networks.

No JAX in here: an exported network is read where JAX is not installed.
"""

import abc
import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from robustscanner_jax.charset import Charset
from robustscanner_jax.image_like import (
    ImageError,
    ImageLike,
    file_of,
    is_image,
    to_bgr,
)
from robustscanner_jax.preprocessing import Preprocessing, Row
from robustscanner_jax.rounds import Rounds
from robustscanner_jax.views import View, Views

# Threads that decode files while the network reads the batch before.
DECODERS = 2


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was read from one image.

    Attributes:
      text: empty where nothing was read.
      confidence: probability of the whole text, in [0, 1].
      character_confidences: probability of each of `characters`, in [0, 1].
      characters: of which the text is made. `<UKN>` is one where the network says
        unknown. Where they are not given: each character of the text.
      angle: by which the crop was turned for it, in degrees, anti-clockwise.
      closer: whether it is of a closer view, without the crop's edges.
    """

    text: str
    confidence: float
    character_confidences: tuple[float, ...]
    characters: tuple[str, ...] = ()
    angle: int = 0
    closer: bool = False

    def __post_init__(self):
        if not self.characters:
            object.__setattr__(self, "characters", tuple(self.text))

    def in_view(self, view: View) -> "Reading":
        """Returns the same, as what was read in a view."""
        return dataclasses.replace(self, angle=view.angle, closer=view.closer)

    def as_fields(self) -> dict[str, Any]:
        """Returns it for JSON, probabilities rounded to six digits."""
        sure_of = [round(confidence, 6) for confidence in self.character_confidences]
        return {
            "text": self.text,
            "confidence": round(self.confidence, 6),
            "characters": list(self.characters),
            "character_confidences": sure_of,
            "angle": self.angle,
            "closer": self.closer,
        }


class DecodedRows(NamedTuple):
    """Greedy decoding of a batch, on the host.

    Attributes:
      ids: the likeliest token of each step, `[b, t]` int32; padding after the end.
      probabilities: of these ids, `[b, t]` float32 in [0, 1]; 1 after the end.
    """

    ids: np.ndarray
    probabilities: np.ndarray


def check_batch_size(batch_size: int) -> None:
    """Raises `ValueError` unless it is a whole number of at least 1."""
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ValueError(
            f"batch_size: expected a whole number of at least 1, got {batch_size!r}"
        )


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

    @overload
    def read(
        self,
        images: ImageLike,
        *,
        rotate_tall: float | None = None,
        look_closer: bool = False,
    ) -> Reading: ...

    @overload
    def read(
        self,
        images: Iterable[ImageLike],
        *,
        rotate_tall: float | None = None,
        look_closer: bool = False,
    ) -> list[Reading]: ...

    def read(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        rotate_tall: float | None = None,
        look_closer: bool = False,
    ) -> Reading | list[Reading]:
        """Returns the reading of one image, or a list of those of many, in order.

        Args:
          images: one word crop, or an iterable of them. A crop is a path, the bytes of
            an image file, a PIL image, or a uint8 array: `[h, w, 3]` RGB, `[h, w]` or
            `[h, w, 1]` grey; or a `Region` of one of these. An array `[n, h, w, 3]` is
            n crops.
          rotate_tall: crops over so many times as tall as wide are read at 90 and 270
            degrees as well, and the surest reading counts (see `views`); None: none.
          look_closer: whether crops that are not read surely are read again without
            their edges, and a reading that is far surer counts (see `views`).

        Raises:
          ImageError: one of them cannot be read; a ValueError that names it. What
            `read_each` does with it costs nothing else.
          TypeError: one of them is no image of any kind.
          ValueError: `rotate_tall` or `look_closer` is not what `Views` takes.
        """
        readings: list[Reading] = []
        for found in self.read_each(
            images, rotate_tall=rotate_tall, look_closer=look_closer
        ):
            if isinstance(found, ImageError):
                raise found
            readings.append(found)
        return readings[0] if is_image(images) else readings

    def read_each(
        self,
        images: ImageLike | Iterable[ImageLike],
        *,
        rotate_tall: float | None = None,
        look_closer: bool = False,
    ) -> Iterator[Reading | ImageError]:
        """Yields a reading for each image, in order, or why it cannot be read.

        Files are decoded while the images before them are read: up to two batches are
        taken from the iterable before their first reading comes.

        Args:
          images, rotate_tall, look_closer: as in `read`.

        Raises:
          TypeError: one of them is no image of any kind.
          ValueError: `rotate_tall` or `look_closer` is not what `Views` takes.
        """
        views = Views(rotate_tall=rotate_tall, look_closer=look_closer)
        given: Any = [images] if is_image(images) else images
        try:
            iterator = iter(given)
        except TypeError:
            kind = type(images).__name__
            raise TypeError(
                f"expected an image or an iterable of images, got {kind}"
            ) from None
        return self._read_each(iterator, views)

    def _read_each(
        self, images: Iterator[ImageLike], views: Views
    ) -> Iterator[Reading | ImageError]:
        prepared = self._prepared(images, views)
        while chunk := list(itertools.islice(prepared, self.batch_size)):
            crops = [crop for crop in chunk if not isinstance(crop, ImageError)]
            readings = iter(self.read_crops(crops))
            for crop in chunk:
                yield crop if isinstance(crop, ImageError) else next(readings)[0]

    def _prepared(
        self, images: Iterator[ImageLike], views: Views
    ) -> Iterator[list[View] | ImageError]:
        """Yields the views of each image, a batch behind the threads."""
        threads = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
        waiting: collections.deque[Callable[[], list[View] | ImageError]]
        waiting = collections.deque()
        try:
            for number, image in enumerate(images):
                prepare = functools.partial(
                    self.views_of, image, f"image {number}", views
                )
                if isinstance(file_of(image), str | Path | bytes):
                    waiting.append(threads.submit(prepare).result)
                else:
                    # At once: an iterator may give the same object again with other
                    # pixels, as PIL's over the frames of a GIF.
                    prepared = prepare()
                    waiting.append(lambda prepared=prepared: prepared)
                if len(waiting) > self.batch_size:
                    yield waiting.popleft()()
            while waiting:
                yield waiting.popleft()()
        finally:
            threads.shutdown(cancel_futures=True)

    def views_of(
        self, image: ImageLike, name: str, views: Views
    ) -> list[View] | ImageError:
        """Returns the views to read of an image, or why it cannot be read.

        Args:
          image: as in `read`.
          name: of the image in errors; a path has its own.
          views: which there are.

        Raises:
          TypeError: it is no image of any kind.
        """
        file = file_of(image)
        if isinstance(file, str | Path):
            name = str(file)
        try:
            return views.of(to_bgr(image), self.preprocessing)
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None
        except (ValueError, OSError) as error:
            return ImageError(name, getattr(error, "strerror", None) or str(error))

    def read_crops(self, crops: Sequence[Sequence[View]]) -> list[tuple[Reading, View]]:
        """Reads crops of one or several views each, as `Views.of` gives them.

        Returns for each the reading that counts, and the view it is of.
        """
        rounds = Rounds[Reading](crops)
        while rows := rounds.rows():
            readings: list[Reading] = []
            for start in range(0, len(rows), self.batch_size):
                readings += self.read_rows(rows[start : start + self.batch_size])
            rounds.add(readings)
        return [(reading.in_view(view), view) for reading, view in rounds.surest()]

    def read_rows(self, rows: Sequence[Row]) -> list[Reading]:
        """Reads what `resize_and_pad` returns; at most `batch_size` rows."""
        filler = [rows[0]] * (self.padded_size(len(rows)) - len(rows))
        pixels, widths = zip(*rows, *filler, strict=True)
        decoded = self.decode(np.stack(pixels), np.asarray(widths, np.int32))
        return self.to_readings(decoded, len(rows))

    def to_readings(self, decoded: Any, count: int) -> list[Reading]:
        """Returns the first `count` rows as texts."""
        ids = np.asarray(decoded.ids)[:count].tolist()
        probabilities = np.asarray(decoded.probabilities)[:count].astype(np.float64)
        return list(map(self._as_reading, ids, probabilities))

    def _as_reading(self, ids: list[int], probabilities: np.ndarray) -> Reading:
        spelled = self.charset.characters_of(ids)
        characters = tuple(character for _, character in spelled)
        return Reading(
            text="".join(characters),
            confidence=float(probabilities.prod()),
            character_confidences=tuple(float(probabilities[t]) for t, _ in spelled),
            characters=characters,
        )

    def padded_size(self, count: int) -> int:
        """Returns how many rows are computed where `count` are asked for."""
        if not self.smallest_batch:
            return count
        size = self.smallest_batch
        while size < count:
            size *= 2
        return min(size, self.batch_size)
