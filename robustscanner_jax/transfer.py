"""Weights for another charset or another length: known rows stay, the rest is new."""

import copy
from typing import Any, NamedTuple

import numpy as np

from robustscanner_jax.charset import Charset
from robustscanner_jax.models.robustscanner import RobustScanner
from robustscanner_jax.weights import Weights, listed, model_config

# What may differ between the network of the weights and the one to train.
_ROWS = ("num_classes", "num_tokens", "start_id", "end_id", "pad_id", "max_len")


class Transferred(NamedTuple):
    """Variables for a network, and what became of the characters.

    Attributes:
      variables: of the new network; numpy arrays.
      kept: characters whose rows are those of the weights, bit for bit.
      added: characters whose rows are as initialised.
      dropped: characters of the weights that the new charset lacks.
    """

    variables: dict[str, Any]
    kept: str
    added: str
    dropped: str


def transfer(
    weights: Weights, model: RobustScanner, charset: Charset, fresh: dict[str, Any]
) -> Transferred:
    """Returns variables for `model` over `charset`, as much as possible of `weights`.

    The character embedding and the classifier have a row a token: those of characters
    that both charsets know and of the special tokens are copied. The position
    embedding has a row a step: those of the steps that both networks have are copied.
    All else is copied whole.

    Args:
      weights: to start from.
      model, charset: to train.
      fresh: variables of `model`, as initialised.

    Raises:
      ValueError: the networks differ in more than characters and steps.
    """
    theirs, ours = model_config(weights.model), model_config(model)
    different = listed(
        [
            f"{name} {theirs[name]!r}, here {ours[name]!r}"
            for name in ours
            if name not in _ROWS and theirs[name] != ours[name]
        ]
    )
    if different:
        raise ValueError(f"the weights are of another network: {different}")
    steps = {i: i for i in range(1 + min(model.max_len, weights.model.max_len))}
    found = copy.deepcopy(weights.variables)
    _copy_rows(
        found["params"], fresh["params"], weights.charset, charset, same_steps=steps
    )
    before, now = weights.charset.characters, charset.characters
    return Transferred(
        found,
        kept="".join(c for c in now if c in before),
        added="".join(c for c in now if c not in before),
        dropped="".join(c for c in before if c not in now),
    )


def _copy_rows(
    params: dict[str, Any],
    start: dict[str, Any],
    before: Charset,
    now: Charset,
    *,
    same_steps: dict[int, int],
) -> None:
    """Gives the tables in `params` the rows of `start`, but for those that stay."""
    ids = _same_tokens(before, now)
    outputs = {
        new: old
        for new, old in ids.items()
        if new < now.num_classes and old < before.num_classes
    }
    for owner, name, rows in (
        ("hybrid", "embedding", ids),
        ("classifier", "bias", outputs),
        ("position", "embedding", same_steps),
    ):
        params[owner][name] = _rows(params[owner][name], start[owner][name], rows)
    kernel = params["classifier"]["kernel"].T
    kernel = _rows(kernel, start["classifier"]["kernel"].T, outputs)
    params["classifier"]["kernel"] = np.ascontiguousarray(kernel.T)


def _same_tokens(before: Charset, now: Charset) -> dict[int, int]:
    """Returns the old id of each new id that means the same."""
    ids = {
        new: before.characters.index(c)
        for new, c in enumerate(now.characters)
        if c in before.characters
    }
    return ids | {
        now.end_id: before.end_id,
        now.pad_id: before.pad_id,
        now.unknown_id: before.unknown_id,
    }


def _rows(old: np.ndarray, new: np.ndarray, same: dict[int, int]) -> np.ndarray:
    """Returns `new` with the rows of `old` where there is one."""
    found = np.array(new)
    found[list(same)] = np.asarray(old)[list(same.values())]
    return found
