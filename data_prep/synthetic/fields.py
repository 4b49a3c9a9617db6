"""Arrays that many pictures share: noise, soft random fields and textures.

They are made once in a process, from fixed numbers: the same in every process.
"""

import functools

import cv2
import numpy as np

from data_prep.synthetic import textures
from data_prep.synthetic.dice import Dice

_NOISE_SIDE = 1024
_SOFT_SHAPE = (160, 320)  # rows, columns
_SOFT_SCALES = (2, 4, 8, 16, 32, 48)  # blur of the soft fields, pixels
_SOFT_COPIES = 4


class Fields:
    """Random patches at any size, cut out of stored arrays."""

    def __init__(self):
        generator = np.random.Generator(np.random.Philox(key=[7, 7]))
        side = _NOISE_SIDE
        self._noise = generator.standard_normal((side, side), np.float32)
        soft = []
        for scale in _SOFT_SCALES:
            for _ in range(_SOFT_COPIES):
                field = generator.standard_normal(_SOFT_SHAPE, np.float32)
                field = cv2.GaussianBlur(field, (0, 0), scale)
                soft.append((field - field.mean()) / field.std())
        self._soft = np.stack(soft)
        self._tiles = textures.paint_all(generator)

    def noise(self, dice: Dice, height: int, width: int) -> np.ndarray | None:
        """Returns standard normal noise [height, width], None for a huge picture."""
        if max(height, width) >= _NOISE_SIDE:
            return None
        y = dice.below(_NOISE_SIDE - height)
        x = dice.below(_NOISE_SIDE - width)
        return self._noise[y : y + height, x : x + width]

    def soft(
        self, dice: Dice, height: int, width: int, scales: tuple[int, int] = (0, 6)
    ) -> np.ndarray:
        """Returns a smooth field [height, width] of zero mean and unit deviation.

        Args:
          dice: where the numbers come from.
          height: rows.
          width: columns.
          scales: first and last + 1 of the six scales, fine to coarse.
        """
        first, last = scales[0] * _SOFT_COPIES, scales[1] * _SOFT_COPIES
        field = self._soft[first + dice.below(last - first)]
        rows = min(_SOFT_SHAPE[0], max(8, height))
        columns = min(_SOFT_SHAPE[1], max(16, width))
        y = dice.below(_SOFT_SHAPE[0] + 1 - rows)
        x = dice.below(_SOFT_SHAPE[1] + 1 - columns)
        return cv2.resize(field[y : y + rows, x : x + columns], (width, height))

    def texture(self, dice: Dice, height: int, width: int) -> list[np.ndarray]:
        """Returns three planes [height, width] float32 of zero mean, of 255."""
        tile = dice.pick(self._tiles)
        side = tile.shape[0]
        zoom = dice.uniform(0.25, 1.0)
        rows = max(4, min(side, int(height * zoom * dice.uniform(0.7, 1.8))))
        columns = max(4, min(side, int(width * zoom)))
        y, x = dice.below(side + 1 - rows), dice.below(side + 1 - columns)
        patch = tile[y : y + rows, x : x + columns]
        if dice.chance(0.5):
            patch = patch[:, ::-1]
        patch = cv2.resize(patch, (width, height))
        planes = cv2.split(patch.astype(np.float32))
        means = cv2.mean(patch)
        for plane, mean in zip(planes, means, strict=False):
            plane -= np.float32(mean)
        return list(planes)


@functools.lru_cache(maxsize=1)
def shared_fields() -> Fields:
    """Returns this process's fields; the first call takes a second."""
    return Fields()
