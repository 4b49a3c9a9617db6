"""How far an imported network is from a file of published outputs.

Computed in float32, as the network runs, the distance is mostly rounding, the published
implementation's and ours. Computed in float64, where the file holds the published
float64 run, what is left would be a difference in what is computed.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from robustscanner_jax.charset import Charset
from robustscanner_jax.decoding import greedy
from robustscanner_jax.models.normalise import normalise
from robustscanner_jax.models.robustscanner import RobustScanner
from robustscanner_jax.reference.convert import (
    CheckpointError,
    Imported,
    find_source,
)
from robustscanner_jax.reference.source import Source
from robustscanner_jax.reference.stages import (
    cross_entropies,
    golden_view,
    stage_outputs,
)

# Largest absolute deviation of a float32 network from a float32 golden file. The
# published implementations themselves, float32 against float64, reach a tenth of these;
# a structural mistake moves the logits by more than 1.
TOLERANCES = {
    "normalised": 1e-6,
    "valid_width": 0.0,
    "stage_relu1_2": 1e-3,
    "stage_block2": 1e-3,
    "stage_relu2": 1e-3,
    "stage_block3": 1e-3,
    "stage_relu3": 1e-3,
    "stage_block4": 1e-3,
    "stage_relu4": 1e-3,
    "stage_block5": 1e-3,
    "backbone": 1e-3,
    "backbone_mean": 1e-3,
    "backbone_std": 1e-3,
    "encoder": 1e-3,
    "position_aware_rnn": 1e-3,
    "position_aware": 1e-3,
    "hybrid_query": 1e-3,
    "hybrid_glimpse": 5e-3,
    "position_glimpse": 5e-3,
    "teacher_fused": 5e-3,
    "teacher_logits": 2e-2,
    "eval_loss_per_token": 2e-2,
    "eval_loss": 1e-4,  # relative
    "greedy_tokens": 0.0,  # how many differ
    "greedy_logits": 2e-2,
    "greedy_probabilities": 1e-3,
    "greedy_text": 0.0,  # how many differ
    "greedy_score": 1e-3,
    # A float64 run against theirs. Where the file lacks the normalised pixels, their
    # rounding to float32, 6e-8, moves the logits by up to 1e-4.
    "teacher_logits_f64": 2e-4,
    "greedy_logits_f64": 2e-4,
    "greedy_probabilities_f64": 2e-5,
    "eval_loss_f64": 1e-6,  # relative
}
_LOSSES = ("eval_loss_ce", "eval_loss")  # as MMOCR's and PaddleOCR's files call it
_MAPS = [
    name
    for name in TOLERANCES
    if not name.startswith(("greedy", "eval_")) and not name.endswith("_f64")
]


@dataclasses.dataclass(frozen=True)
class Deviation:
    """How far a stage is from the golden file.

    Attributes:
      stage: key of `TOLERANCES`.
      largest: absolute; relative for a loss; a count for tokens and texts.
      tolerance: what `largest` may be.
    """

    stage: str
    largest: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the deviation is within its tolerance; NaN is not."""
        return self.largest <= self.tolerance


def published_reading(
    source: str, charset: Charset, ids: Sequence[int], probabilities: Sequence[float]
) -> tuple[str, list[float]]:
    """Returns a text and its score as the published postprocessor gives them.

    Both leave out what follows the first end token, and padding. The score is one value
    a character (MMOCR) or their mean alone (PaddleOCR; NaN for an empty text).
    """
    scores = [float(probabilities[step]) for step, _ in charset.characters_of(ids)]
    if find_source(source).mean_score:
        scores = [float(np.mean(scores)) if scores else float("nan")]
    return charset.to_text(ids), scores


def read_golden(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a golden file.

    Raises:
      CheckpointError: it cannot be read, or lacks the inputs.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            golden = {name: arrays[name] for name in arrays.files}
    except FileNotFoundError as error:
        raise CheckpointError(f"golden file {path}: no such file") from error
    except Exception as error:  # a damaged archive fails anywhere
        raise CheckpointError(f"golden file {path}: damaged ({error})") from error
    needed = {"images_u8", "valid_ratio", "target_padded"} - set(golden)
    if needed:
        raise CheckpointError(f"golden file {path}: it lacks {sorted(needed)}")
    return golden


def _largest(ours: ArrayLike, golden: ArrayLike) -> float:
    ours, golden = np.asarray(ours), np.asarray(golden)
    if ours.shape != golden.shape:
        return float("inf")
    return float(np.max(np.abs(np.asarray(ours, np.float64) - golden), initial=0.0))


def _greedy_deviations(
    source: Source,
    charset: Charset,
    golden: Mapping[str, np.ndarray],
    ids: np.ndarray,
    probabilities: np.ndarray,
) -> dict[str, float]:
    found = {"greedy_tokens": float(np.sum(ids != golden["greedy_tokens"]))}
    top = golden.get("greedy_top1")  # or all classes' probabilities
    if top is None and "greedy_probs" in golden:
        top = golden["greedy_probs"].max(axis=-1)
    if top is not None:
        found["greedy_probabilities"] = _largest(probabilities, top)
    readings = [
        published_reading(source.name, charset, row.tolist(), p.tolist())
        for row, p in zip(ids, probabilities, strict=True)
    ]
    if "greedy_text" in golden:
        texts = golden["greedy_text"].tolist()
        found["greedy_text"] = float(
            sum(ours != text for (ours, _), text in zip(readings, texts, strict=True))
        )
    published = golden.get("greedy_scores", golden.get("greedy_score"))
    if published is None:
        return found
    worst = 0.0
    for (_, ours), row in zip(readings, published, strict=True):
        row = np.atleast_1d(row)
        expected = row[: len(ours)]
        surplus = np.isfinite(row[len(ours) :]).any()
        same_nan = np.isnan(ours) & np.isnan(expected)
        gap = np.where(same_nan, 0.0, np.abs(np.asarray(ours) - expected))
        worst = max(worst, float("inf") if surplus else float(gap.max(initial=0.0)))
    return found | {"greedy_score": worst}


def _inputs(
    imported: Imported, golden: Mapping[str, np.ndarray]
) -> tuple[jax.Array, np.ndarray, np.ndarray]:
    """Returns normalised images, content widths in pixels, and tokens."""
    rule = imported.preprocessing
    pixels = jnp.asarray(golden["images_u8"])
    image = normalise(pixels, mean=rule.mean, scale=rule.scale)
    width = (golden["valid_ratio"] * rule.max_width).astype(np.float32)
    return image, width, golden["target_padded"].astype(np.int32)


def _fed_back(model: RobustScanner, ids: np.ndarray) -> np.ndarray:
    """Returns the tokens with which teacher forcing is greedy decoding."""
    start = np.full((len(ids), 1), model.start_id, np.int32)
    return np.concatenate([start, ids[:, :-1]], axis=1, dtype=np.int32)


def _losses(
    logits: jax.Array, tokens: np.ndarray, charset: Charset
) -> tuple[np.ndarray, float]:
    """Returns the loss of each step, and its mean over the characters and ends."""
    losses = cross_entropies(logits, jnp.asarray(tokens), pad_id=charset.pad_id)
    counted = (tokens[:, 1:] != charset.pad_id).sum()
    return np.asarray(losses), float(losses.sum() / counted)


def _float64_deviations(
    imported: Imported, golden: Mapping[str, np.ndarray]
) -> dict[str, float]:
    """Returns the deviations of a float64 run, where the file holds such outputs."""
    if not {"teacher_logits_f64", "greedy_logits_f64"} <= set(golden):
        return {}
    image, width, tokens = _inputs(imported, golden)
    if "images" in golden:  # float32, as the published float64 run got them
        image = golden["images"].transpose(0, 2, 3, 1)
    with jax.enable_x64(True):
        model = imported.model.clone(dtype=jnp.float64)
        variables = jax.tree.map(lambda x: np.float64(x), imported.variables)
        inputs = model, variables, image.astype(jnp.float64), width
        logits = stage_outputs(*inputs, tokens)["teacher_logits"]
        _, loss = _losses(logits, tokens, imported.charset)
        decoded = greedy(*inputs, all_steps=True)
        previous = _fed_back(model, np.asarray(decoded.ids))
        again = stage_outputs(*inputs, previous)["teacher_logits"]
        expected = golden["greedy_logits_f64"].astype(np.float64)
        top = np.asarray(jax.nn.softmax(jnp.asarray(expected)).max(axis=-1))
    found = {
        "teacher_logits_f64": _largest(logits, golden["teacher_logits_f64"]),
        "greedy_logits_f64": _largest(again, expected),
        "greedy_probabilities_f64": _largest(decoded.probabilities, top),
    }
    for key in {f"{name}_f64" for name in _LOSSES} & set(golden):
        published = float(golden[key])
        found["eval_loss_f64"] = abs(loss - published) / abs(published)
    return found


def deviations(
    source: Source, imported: Imported, golden: Mapping[str, np.ndarray]
) -> tuple[Deviation, ...]:
    """Returns how far the network is from a golden file, in the order of `TOLERANCES`.

    Args:
      source: of both.
      imported: the network.
      golden: of `read_golden`; stages that it lacks are left out.
    """
    model, variables, charset, _ = imported
    image, width, tokens = _inputs(imported, golden)
    found: dict[str, float] = {}
    with jax.default_matmul_precision("highest"):
        stages = stage_outputs(model, variables, image, width, tokens)
        decoded = greedy(model, variables, image, width, all_steps=True)
        ids, probabilities = np.asarray(decoded.ids), np.asarray(decoded.probabilities)
        if "greedy_logits" in golden:
            again = stage_outputs(model, variables, image, width, _fed_back(model, ids))
            logits = np.asarray(again["teacher_logits"])
            found["greedy_logits"] = _largest(logits, golden["greedy_logits"])
    if "images" in golden:
        published = golden["images"].transpose(0, 2, 3, 1)
        found["normalised"] = _largest(np.asarray(image), published)
    for key, value in golden.items():
        name = key.partition("@")[0]
        if name in _MAPS:
            found[name] = _largest(golden_view(stages, key, value), value)
    losses, loss = _losses(stages["teacher_logits"], tokens, charset)
    if "eval_loss_per_token" in golden:
        found["eval_loss_per_token"] = _largest(losses, golden["eval_loss_per_token"])
    for key in set(_LOSSES) & set(golden):
        found["eval_loss"] = abs(loss - float(golden[key])) / abs(float(golden[key]))
    if "greedy_tokens" in golden:
        found |= _greedy_deviations(source, charset, golden, ids, probabilities)
    found |= _float64_deviations(imported, golden)
    return tuple(
        Deviation(stage, found[stage], tolerance)
        for stage, tolerance in TOLERANCES.items()
        if stage in found
    )
