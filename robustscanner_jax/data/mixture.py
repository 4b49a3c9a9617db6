"""Which example comes when: an endless mixture of sources, before anything is read.

No JAX in here: this runs in worker processes.
"""

import functools
from collections.abc import Sequence
from typing import Any

import grain
import grain.experimental
import numpy as np

from robustscanner_jax.data.reads import Source

# What stands for an example until its batch is read: the number of its source, its
# place there, and the state of the generator that drives its augmentation.
Reference = tuple[int, int, Any]


def mixed_references(
    sources: Sequence[Source], weights: Sequence[float], *, seed: int, window: int
) -> Any:
    """Returns an endless `grain.MapDataset` of `Reference`, the same for one seed.

    Every epoch of a source is a new permutation.

    Args:
      sources: whose examples these are.
      weights: share of each source in the mixture; need not sum to 1.
      seed: of order and augmentation.
      window: so many examples in a row, from the first on, have the sources' shares;
        within it they come in random order.

    Raises:
      ValueError: no sources, an empty one, or weights that do not fit.
    """
    if not sources or len(sources) != len(weights) or min(weights) <= 0:
        raise ValueError(
            "expected at least one source and a positive weight for each, "
            f"got {len(sources)} sources and weights {list(weights)}"
        )
    for source in sources:
        if len(source) == 0:
            raise ValueError(f"source {source.name}: expected examples, it has none")
    mixed = grain.MapDataset.mix(
        [
            grain.MapDataset.range(len(source))
            .seed(seed + number)
            .shuffle()
            .repeat()
            .map(functools.partial(_refer, number))
            for number, source in enumerate(sources)
        ],
        weights=list(weights),
    )
    # Before the split over processes, so that the augmentation of an example does not
    # depend on their number.
    references: Any = mixed.seed(seed).random_map(_with_generator_state)
    if len(sources) == 1:
        return references
    # Grain mixes by a fixed pattern, such as one of each in turn.
    return grain.experimental.WindowShuffleMapDataset(
        references, window_size=window, seed=seed
    )


def _refer(source: int, index: int) -> tuple[int, int]:
    return source, int(index)


def _with_generator_state(
    example: tuple[int, int], rng: np.random.Generator
) -> Reference:
    # The generator itself serves the next example.
    return *example, rng.bit_generator.state
