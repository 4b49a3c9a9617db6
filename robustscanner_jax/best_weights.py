"""The weights of a run's best evaluation, as a file: RUN/best.safetensors."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustscanner_jax.metrics import SetScore, mean_over_sets
from robustscanner_jax.weights import Weights, load_weights, save_weights

FILE = "best.safetensors"


def keep_best(
    workdir: Path, weights: Weights, scores: Sequence[SetScore], protocol: str
) -> bool:
    """Writes the weights unless those that are there read the same sets better.

    Better is the mean accuracy over the sets; of equals, the earlier stay. A file that
    is damaged, or was chosen by other sets or another protocol, is replaced.

    Args:
      workdir: the run folder.
      weights: as they were evaluated; their card should say of which step.
      scores: one a set, at least one.
      protocol: of the evaluation.

    Returns whether it wrote them.

    Raises:
      OSError: the file that is there cannot be read, or no other be written.
    """
    path = workdir / FILE
    chosen_by = {
        "protocol": protocol,
        "sets": [[score.name, score.size] for score in scores],
    }
    accuracy = mean_over_sets(scores)
    if accuracy <= _accuracy_of(path, chosen_by):
        return False
    card = {"chosen_by": chosen_by, "mean_accuracy": accuracy}
    save_weights(path, dataclasses.replace(weights, card=weights.card | card))
    return True


def _accuracy_of(path: Path, chosen_by: dict[str, Any]) -> float:
    """Returns what the weights in a file reached in the same choice, or -1."""
    if not path.is_file():
        return -1.0
    try:
        card = load_weights(path).card
    except ValueError as error:
        if isinstance(error.__cause__, OSError):  # storage, which may come back
            raise error.__cause__ from None
        return -1.0
    return card["mean_accuracy"] if card.get("chosen_by") == chosen_by else -1.0
