"""How far an imported network is from a file of published outputs."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from robustscanner_jax.charset import Charset
from robustscanner_jax.decoding import greedy
from robustscanner_jax.models.normalise import normalise
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
}
_LOSSES = ("eval_loss_ce", "eval_loss")  # as MMOCR's and PaddleOCR's files call it
_MAPS = [name for name in TOLERANCES if not name.startswith(("greedy", "eval_"))]


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
    length = charset.length(ids)
    pairs = zip(list(ids)[:length], list(probabilities)[:length], strict=True)
    scores = [float(p) for i, p in pairs if i != charset.pad_id]
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


def _largest(ours: np.ndarray, golden: np.ndarray) -> float:
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


def deviations(
    source: Source, imported: Imported, golden: Mapping[str, np.ndarray]
) -> tuple[Deviation, ...]:
    """Returns how far the network is from a golden file, in the order of `TOLERANCES`.

    Args:
      source: of both.
      imported: the network.
      golden: of `read_golden`; stages that it lacks are left out.
    """
    model, variables, charset, rule = imported
    pixels = jnp.asarray(golden["images_u8"])
    image = normalise(pixels, mean=rule.mean, scale=rule.scale)
    width = (golden["valid_ratio"] * rule.max_width).astype(np.float32)
    tokens = golden["target_padded"].astype(np.int32)
    found: dict[str, float] = {}
    with jax.default_matmul_precision("highest"):
        stages = stage_outputs(model, variables, image, width, tokens)
        decoded = greedy(model, variables, image, width, all_steps=True)
        ids, probabilities = np.asarray(decoded.ids), np.asarray(decoded.probabilities)
        if "greedy_logits" in golden:
            # Greedy decoding is teacher forcing on its own output.
            start = np.full((len(ids), 1), model.start_id, np.int32)
            previous = np.concatenate([start, ids[:, :-1]], axis=1)
            again = stage_outputs(model, variables, image, width, previous)
            logits = np.asarray(again["teacher_logits"])
            found["greedy_logits"] = _largest(logits, golden["greedy_logits"])
    if "images" in golden:
        published = golden["images"].transpose(0, 2, 3, 1)
        found["normalised"] = _largest(np.asarray(image), published)
    for key, value in golden.items():
        name = key.partition("@")[0]
        if name in _MAPS:
            found[name] = _largest(golden_view(stages, key, value), value)
    losses = cross_entropies(
        stages["teacher_logits"], jnp.asarray(tokens), pad_id=charset.pad_id
    )
    if "eval_loss_per_token" in golden:
        per_token = np.asarray(losses)
        found["eval_loss_per_token"] = _largest(
            per_token, golden["eval_loss_per_token"]
        )
    loss = float(losses.sum() / (tokens[:, 1:] != charset.pad_id).sum())
    for key in set(_LOSSES) & set(golden):
        found["eval_loss"] = abs(loss - float(golden[key])) / abs(float(golden[key]))
    if "greedy_tokens" in golden:
        found |= _greedy_deviations(source, charset, golden, ids, probabilities)
    return tuple(
        Deviation(stage, found[stage], tolerance)
        for stage, tolerance in TOLERANCES.items()
        if stage in found
    )
