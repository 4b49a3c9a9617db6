"""Rendered words as a source: `rendered:PRESET?seed=1&count=1000&split=train`.

Either drawn on the fly, or written to ArrayRecord once and read from there.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from robustscanner_jax.data.sources import open_source

PREFIX = "rendered:"
SPLITS = ("train", "heldout", "any")
MOST = 2**62  # words of a source: positions are signed numbers of 64 bits


@dataclasses.dataclass(frozen=True)
class RenderedSpec:
    """What the string names.

    Attributes:
      preset: of `data_prep.synthetic.presets`.
      seed: of the whole source; image i depends on preset, seed, split and i alone.
      count: images.
      split: "train", or "heldout" for spellings that "train" never has as a label (as
        neighbours of a word it may show them), or "any".
    """

    preset: str
    seed: int = 0
    count: int = 1_000_000
    split: str = "train"

    @classmethod
    def parse(cls, text: str) -> "RenderedSpec":
        """Reads `rendered:PRESET?seed=1&count=1000&split=train`; all but PRESET may go.

        Raises:
          ValueError: an unknown key, a number that is none, or an unknown split.
        """
        preset, _, query = text.removeprefix(PREFIX).partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        unknown = sorted(set(options) - {"seed", "count", "split"})
        if not preset or unknown:
            raise ValueError(
                f"{text}: expected {PREFIX}PRESET?seed=S&count=N&split=NAME, "
                f"unknown {unknown or 'preset'}"
            )
        try:
            numbers = {k: int(options[k]) for k in ("seed", "count") if k in options}
        except ValueError as error:
            raise ValueError(f"{text}: seed and count are whole numbers") from error
        spec = cls(preset, split=options.get("split", "train"), **numbers)
        if spec.split not in SPLITS or not 1 <= spec.count <= MOST or spec.seed < 0:
            raise ValueError(
                f"{text}: expected a split of {SPLITS}, 1 <= count <= {MOST} and "
                "seed >= 0"
            )
        return spec

    @property
    def name(self) -> str:
        """A name for folders and messages."""
        return f"{self.preset}-{self.split}-{self.seed}-{self.count}"

    def open(self) -> Any:
        """Returns the source that renders each image when it is asked for."""
        from data_prep.synthetic.presets import get_settings
        from data_prep.synthetic.source import RenderedWords

        return RenderedWords(
            get_settings(self.preset),
            seed=self.seed,
            count=self.count,
            split=self.split,
            name=self.name,
        )

    def store(self, folder: Path) -> Path:
        """Writes the images under `folder` unless they are there; returns where."""
        from data_prep.synthetic.dataset import synthesize

        output = folder / self.name
        synthesize(
            output,
            count=self.count,
            seed=self.seed,
            preset=self.preset,
            split=self.split,
            progress=sys.stderr.isatty(),
        )
        return output


def open_named(source: str, *, store: Path | None = None) -> Any:
    """Opens whatever a config or a flag names: rendered words, files, folders.

    Args:
      source: `rendered:...`, or a path for `open_source`.
      store: folder where rendered words are written and read from; None renders each
        when it is asked for.
    """
    if not source.startswith(PREFIX):
        return open_source(source)
    spec = RenderedSpec.parse(source)
    return spec.open() if store is None else open_source(spec.store(store))
