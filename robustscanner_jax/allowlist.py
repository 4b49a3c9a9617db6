"""Weights that read some characters alone: digits, or what a licence plate holds."""

import copy
import dataclasses

import numpy as np

from robustscanner_jax.weights import Weights

# Added to the logits of the others, which are about 10: their probability is 0. Finite
# in float16 as well, in which an exported graph may be run.
FORBIDDEN = -1e4


def restrict(weights: Weights, characters: str) -> Weights:
    """Returns weights that predict nothing but these characters and the end of a text.

    Confidences become those among what is allowed. The network stays the same, so this
    holds wherever the weights go: reading, evaluation, exports of every format.

    Args:
      weights: to restrict; they stay as they are.
      characters: of the charset, upper and lower case apart.

    Raises:
      ValueError: there is none, or one that the weights do not read.
    """
    charset = weights.charset
    readable = weights.card.get("allowlist", charset.characters)
    unknown = "".join(c for c in dict.fromkeys(characters) if c not in readable)
    if unknown or not characters:
        raise ValueError(
            f"allowlist: expected characters of {readable!r}, "
            f"which these weights read, got {unknown or 'none'!r}"
        )
    forbidden = np.ones(charset.num_classes, bool)
    forbidden[[*charset.encode(characters), charset.end_id]] = False
    variables = copy.deepcopy(weights.variables)
    classifier = variables["params"]["classifier"]
    classifier["bias"] = np.where(forbidden, FORBIDDEN, classifier["bias"])
    allowed = "".join(c for c in charset.characters if c in characters)
    return dataclasses.replace(
        weights, variables=variables, card=weights.card | {"allowlist": allowed}
    )
