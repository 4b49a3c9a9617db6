"""The proof that an imported network is the published one."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from robustscanner_jax.charset import Charset
from robustscanner_jax.reference.convert import Imported, convert, find_source
from robustscanner_jax.reference.golden import Deviation, deviations, read_golden


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
    imported, findings = convert(
        source, state, characters=characters, max_len=max_len, width=width
    )
    kind = find_source(source)
    measured: tuple[Deviation, ...] = ()
    if golden_path is not None and imported is not None:
        golden = read_golden(golden_path)
        steps = golden["target_padded"].shape[1]
        if steps == imported.model.max_len:
            measured = deviations(kind, imported, golden)
            if not measured:
                findings.problems.append(
                    f"golden file {golden_path}: it holds inputs alone, nothing to "
                    "compare with"
                )
            largest = {d.stage: d.largest for d in measured}
            if largest.get("greedy_text") and not largest["greedy_tokens"]:
                findings.problems.append(
                    "the tokens are right but the texts are not: the dictionary has "
                    "another order"
                )
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
        deviations=measured,
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
