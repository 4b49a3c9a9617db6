"""The proof that an imported network is the published one."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from robustscanner_jax.charset import Charset
from robustscanner_jax.decoding import greedy
from robustscanner_jax.models.normalise import normalise
from robustscanner_jax.reference.convert import (
    CheckpointError,
    Findings,
    Imported,
    convert,
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


@dataclasses.dataclass(frozen=True)
class Certificate:
    """What was checked of an imported checkpoint, and what came out.

    Attributes:
      source: title of the published implementation.
      tensors: in the checkpoint.
      imported: of them, each became one variable.
      duplicates: second names of the same tensor (PaddleOCR's LSTMs).
      counters: `num_batches_tracked`, used by nothing.
      charset: what the tokens mean; None if the tensors do not fit.
      problems: why the checkpoint is refused.
      notes: what was changed or left out on the way.
      deviations: from the golden file, if one was given.
    """

    source: str
    tensors: int
    imported: int
    duplicates: int
    counters: int
    charset: Charset | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    deviations: tuple[Deviation, ...]

    @property
    def ok(self) -> bool:
        """Whether everything fits."""
        return not self.problems and all(d.ok for d in self.deviations)

    def text(self) -> str:
        """Returns the certificate for people, several lines."""
        used = self.imported + self.duplicates + self.counters
        lines = [
            f"Parity certificate, {self.source} checkpoint",
            f"  tensors     {self.tensors}: {self.imported} imported once, "
            f"{self.duplicates} second names, {self.counters} counters, "
            f"{self.tensors - used} left over",
        ]
        if self.charset is not None:
            ids = self.charset
            lines += [
                "  shapes      all as expected, all values finite",
                f"  dictionary  {len(ids.characters)} characters, "
                f"{ids.num_classes} classes",
                f"  tokens      end {ids.end_id}, padding {ids.pad_id} (its embedding "
                f"is zero), unknown {ids.unknown_id}",
            ]
        lines += [f"  note        {note}" for note in self.notes]
        lines += [f"  PROBLEM     {problem}" for problem in self.problems]
        if self.deviations:
            lines.append(f"  {'stage':22}{'largest deviation':>18}{'tolerance':>11}")
        for d in self.deviations:
            verdict = "" if d.ok else "  TOO LARGE"
            lines.append(
                f"  {d.stage:22}{d.largest:>18.2g}{d.tolerance:>11.2g}{verdict}"
            )
        lines.append(f"  result      {'passed' if self.ok else 'FAILED'}")
        return "\n".join(lines)


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


def _read_golden(path: str | Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            golden = {name: file[name] for name in file.files}
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
    if "greedy_probs" in golden:
        top = golden["greedy_probs"].max(axis=-1)
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
    scores = np.atleast_2d(golden.get("greedy_scores", golden.get("greedy_score")).T).T
    worst = 0.0
    for (_, ours), row in zip(readings, scores, strict=True):
        expected = row[: len(ours)]
        surplus = np.isfinite(row[len(ours) :]).any()
        same_nan = np.isnan(ours) & np.isnan(expected)
        gap = np.where(same_nan, 0.0, np.abs(np.asarray(ours) - expected))
        worst = max(worst, float("inf") if surplus else float(gap.max(initial=0.0)))
    return found | {"greedy_score": worst}


def _deviations(
    source: Source, imported: Imported, golden: Mapping[str, np.ndarray]
) -> tuple[Deviation, ...]:
    model, variables, charset, rule = imported
    image = normalise(golden["images_u8"], mean=rule.mean, scale=rule.scale)
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
        pixels = np.asarray(image).transpose(0, 3, 1, 2)
        found["normalised"] = _largest(pixels, golden["images"])
    for key, value in golden.items():
        name = key.partition("@")[0]
        if name in _MAPS:
            found[name] = _largest(golden_view(stages, key, value), value)
    losses = cross_entropies(stages["teacher_logits"], tokens, pad_id=charset.pad_id)
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


def examine(
    source: str,
    state: Mapping[str, np.ndarray],
    golden_path: str | Path | None = None,
    *,
    characters: str | None = None,
    max_len: int | None = None,
    width: str = "base",
    notes: Sequence[str] = (),
) -> tuple[Imported | None, Certificate]:
    """Returns the imported network, None if it does not fit, and its certificate."""
    findings: Findings
    imported, findings = convert(
        source, state, characters=characters, max_len=max_len, width=width
    )
    kind = find_source(source)
    deviations: tuple[Deviation, ...] = ()
    if golden_path is not None and imported is not None:
        golden = _read_golden(golden_path)
        steps = golden["target_padded"].shape[1]
        if steps == imported.model.max_len:
            deviations = _deviations(kind, imported, golden)
        else:
            findings.problems.append(
                f"golden file {golden_path}: it has {steps} decoding steps, "
                f"the network {imported.model.max_len}"
            )
    return imported, Certificate(
        source=kind.title,
        tensors=findings.tensors,
        imported=findings.consumed,
        duplicates=findings.duplicates,
        counters=findings.counters,
        charset=imported and imported.charset,
        problems=tuple(findings.problems),
        notes=(*notes, *findings.notes),
        deviations=deviations,
    )


def certify(
    source: str,
    state: Mapping[str, np.ndarray],
    golden_path: str | Path | None = None,
    *,
    characters: str | None = None,
    max_len: int | None = None,
    width: str = "base",
) -> Certificate:
    """Checks a published checkpoint against this network.

    Every tensor must be consumed once, none left over, with its shape, finite, and the
    padding row where the dictionary says. With a golden file, also what the network
    computes: stage by stage, greedy tokens, texts, scores and the loss.

    Args:
      source, state, characters, max_len, width: see `convert.import_state`.
      golden_path: an `.npz` of the published implementation's outputs on this very
        checkpoint.

    Raises:
      CheckpointError: the golden file cannot be read.
    """
    return examine(
        source,
        state,
        golden_path,
        characters=characters,
        max_len=max_len,
        width=width,
    )[1]
