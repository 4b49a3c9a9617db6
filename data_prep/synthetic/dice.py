"""Random numbers of one picture."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_BLOCK = (
    128  # uniform numbers fetched at once: a call of numpy for each costs 5 times more
)


class Dice:
    """Draws numbers from a stream that is fixed by two integers.

    Philox takes the pair as its key, so picture `index` of `seed` is the same whether
    it is drawn alone, after others, or in another process.
    """

    __slots__ = ("_block", "_generator")

    def __init__(self, seed: int, index: int):
        key = np.array([seed % 2**64, index % 2**64], np.uint64)
        self._generator = np.random.Generator(np.random.Philox(key=key))
        self._block: list[float] = []

    def random(self) -> float:
        """Returns a number in [0, 1)."""
        if not self._block:
            self._block = self._generator.random(_BLOCK).tolist()
        return self._block.pop()

    def chance(self, share: float) -> bool:
        """Returns True in `share` of the calls."""
        return self.random() < share

    def uniform(self, low: float, high: float) -> float:
        """Returns a number in [low, high)."""
        return low + (high - low) * self.random()

    def below(self, count: int) -> int:
        """Returns an integer in [0, count)."""
        return int(self.random() * count)

    def integer(self, low: int, high: int) -> int:
        """Returns an integer in [low, high], both ends included."""
        return low + int(self.random() * (high - low + 1))

    def normal(self, mean: float = 0.0, deviation: float = 1.0) -> float:
        """Returns a number from the normal distribution."""
        radius = math.sqrt(-2.0 * math.log(1.0 - self.random()))
        return mean + deviation * radius * math.cos(2.0 * math.pi * self.random())

    def pick(self, choices: Sequence[Any]) -> Any:
        """Returns one of `choices`, all equally likely."""
        return choices[int(self.random() * len(choices))]

    def kind(self, shares: Mapping[str, float]) -> str:
        """Returns a key of `shares`, each as likely as its value (of their sum)."""
        left = self.random() * sum(shares.values())
        name = ""
        for name, share in shares.items():
            left -= share
            if left < 0:
                return name
        return name

    def vector(self, low: float, high: float) -> np.ndarray:
        """Returns three numbers in [low, high) as float32, one for each channel."""
        values = [self.uniform(low, high) for _ in range(3)]
        return np.array(values, np.float32)

    def normals(self, deviation: float) -> np.ndarray:
        """Returns three normal numbers as float32, one for each channel."""
        values = [self.normal(0.0, deviation) for _ in range(3)]
        return np.array(values, np.float32)
