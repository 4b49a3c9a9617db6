"""Rendered words as a random-access source, for training without a disk step."""

from typing import Any, SupportsIndex

from ml_collections import ConfigDict

from data_prep.synthetic.render import WordRenderer


class RenderedWords:
    """A sequence of `count` rendered words, as grain reads one.

    Element i is picture i of `WordRenderer`: the same in every process, epoch and
    order. Pickles small; each process loads fonts and words by itself.

    Attributes:
      name: short, for tables and messages.
    """

    def __init__(
        self,
        settings: ConfigDict,
        *,
        seed: int,
        count: int,
        split: str = "train",
        name: str = "full",
    ):
        if count < 1:
            raise ValueError(f"rendered words: count must be at least 1, got {count}")
        self.name = f"rendered/{name}/{seed}"
        self._count = count
        self._renderer = WordRenderer(settings, seed=seed, split=split)

    def __len__(self) -> int:
        """Returns the number of words."""
        return self._count

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        """Returns `id` (str), `image` [h, w, 3] uint8 BGR, and `text` (str).

        Raises:
          IndexError: the index is outside of [0, len).
        """
        number = index.__index__()
        if not 0 <= number < self._count:
            raise IndexError(f"{self.name}: no word {number} of {self._count}")
        rendered = self._renderer.render(number)
        return {
            "id": f"{self.name}/{number:06d}",
            "image": rendered.image,
            "text": rendered.text,
        }

    def __repr__(self) -> str:
        """Returns name and size; grain prints it in messages."""
        return f"RenderedWords({self.name}, {self._count})"
