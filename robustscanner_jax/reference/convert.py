"""A published checkpoint's arrays to our variables, and back."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from robustscanner_jax.charset import DICT90, Charset
from robustscanner_jax.models.robustscanner import RobustScanner
from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.reference.mmocr import MMOCR, MMOCR0
from robustscanner_jax.reference.names import Entry, counters, entries
from robustscanner_jax.reference.paddle import PADDLE
from robustscanner_jax.reference.source import Source
from robustscanner_jax.weights import expected_shapes, flatten, listed, unflatten

SOURCES = {source.name: source for source in (MMOCR, MMOCR0, PADDLE)}
EMBEDDING = "params/hybrid/embedding"
POSITIONS = "params/position/embedding"
CLASSIFIER = ("params/classifier/kernel", "params/classifier/bias")


class CheckpointError(ValueError):
    """A checkpoint does not fit the network; the message names what and where."""


class Imported(NamedTuple):
    """A published checkpoint as this project's network; variables are float32."""

    model: RobustScanner
    variables: dict[str, Any]
    charset: Charset
    preprocessing: Preprocessing


@dataclasses.dataclass
class Findings:
    """What came up while a checkpoint was converted.

    Attributes:
      tensors: how many the checkpoint holds.
      consumed: how many became a variable, each once.
      duplicates: second names of an LSTM tensor, equal to the first.
      counters: `num_batches_tracked`, which nothing uses.
      problems: why the checkpoint does not fit; empty if it does.
      notes: what was changed on the way.
    """

    tensors: int = 0
    consumed: int = 0
    duplicates: int = 0
    counters: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)


def find_source(source: str) -> Source:
    """Returns the source of that name.

    Raises:
      ValueError: there is none.
    """
    if source not in SOURCES:
        raise ValueError(f"source must be one of {list(SOURCES)}, got {source!r}")
    return SOURCES[source]


def _check_names(source: Source, names: set[str], findings: Findings) -> None:
    table = entries(source.dialect)
    findings.tensors = len(names)
    expected = {entry.name for entry in table}
    # Harmless repetitions: a checkpoint may do without all of them, not without some.
    aliases = {entry.alias for entry in table if entry.alias}
    tracked = set(counters(source.dialect))
    for optional in (aliases, tracked):
        if optional & names:
            expected |= optional
    findings.duplicates = len(aliases & names)
    findings.counters = len(tracked & names)
    missing, extra = sorted(expected - names), sorted(names - expected)
    for other in SOURCES.values():
        theirs = {entry.name for entry in entries(other.dialect)}
        if missing and other is not source and theirs <= names:
            findings.problems.append(
                f"the names are those of source {other.name} ({other.title}), "
                f"not of {source.name}"
            )
            return
    findings.problems += [f"{name} is missing" for name in missing]
    findings.problems += [f"{name} is not part of {source.title}" for name in extra]


def _check_dictionary(
    source: Source, charset: Charset, rows: int, classes: int
) -> list[str]:
    """Returns how the tensors' sizes and the dictionary differ."""
    if (rows, classes) == (charset.num_tokens, charset.num_classes):
        return []
    text = (
        f"dictionary: {len(charset.characters)} characters need "
        f"{charset.num_tokens} rows of the embedding and {charset.num_classes} classes "
        f"in {source.title}, the tensors have {rows} and {classes}"
    )
    if classes == source.token_ids(rows - 3)["num_classes"]:
        text += f": pass the {rows - 3} characters that it was trained on"
    elif 0 <= rows - classes <= 1:
        text += ": these are the sizes of another version, check the source"
    return [text]


def _shape_problem(entry: Entry, shape: tuple[int, ...], expected: tuple[int, ...]):
    text = f"{entry.name}: expected shape {list(expected)}, got {list(shape)}"
    if len(shape) > 1 and sorted(shape) == sorted(expected):
        text += ", transposed"
    elif entry.path == POSITIONS and len(shape) == 2 and shape[1] == expected[1]:
        steps = shape[0] - 1
        text += f": {steps} decoding steps, pass max_len={steps}"
    return text


def _check_arrays(
    source: Source,
    model: RobustScanner,
    charset: Charset,
    state: Mapping[str, np.ndarray],
    findings: Findings,
) -> dict[str, np.ndarray]:
    """Returns our arrays by path; what does not fit goes into the findings."""
    ours: dict[str, np.ndarray] = {}
    shapes = expected_shapes(model)
    by_path = {entry.path: entry for entry in entries(source.dialect)}
    sized: set[str] = set()  # paths whose size depends on the dictionary, if it is off
    rows = np.asarray(state.get(by_path[EMBEDDING].name, 0))
    bias = np.asarray(state.get(by_path[CLASSIFIER[1]].name, 0))
    if (rows.ndim, bias.ndim) == (2, 1) and rows.shape[1] == model.decoder_width:
        off = _check_dictionary(source, charset, len(rows), len(bias))
        findings.problems += off
        sized = {EMBEDDING, *CLASSIFIER} if off else sized
    for path, entry in by_path.items():
        if entry.name not in state:
            continue
        array = np.asarray(state[entry.name])
        expected = entry.published_shape(shapes[path])
        if array.dtype.kind != "f":
            findings.problems.append(
                f"{entry.name}: expected floating-point values, got {array.dtype}"
            )
        elif array.shape != expected:
            if path not in sized:
                problem = _shape_problem(entry, array.shape, expected)
                findings.problems.append(problem)
        elif not np.isfinite(array).all():
            bad = int(array.size - np.isfinite(array).sum())
            findings.problems.append(
                f"{entry.name}: {bad} of {array.size} values are not finite"
            )
        else:
            ours[path] = np.array(entry.to_ours(array), np.float32, order="C")
            findings.consumed += 1
            if (
                entry.alias
                and entry.alias in state
                and not np.array_equal(state[entry.alias], array)
            ):
                findings.problems.append(
                    f"{entry.alias}: differs from {entry.name}, of which it is a copy"
                )
    others = {str(np.asarray(a).dtype) for a in state.values()} & {"float16", "float64"}
    if others:
        findings.notes.append(f"{' and '.join(sorted(others))} values became float32")
    return ours


def _check_pad_row(
    source: Source,
    charset: Charset,
    ours: dict[str, np.ndarray],
    findings: Findings,
) -> None:
    """The padding token's embedding is zero, unless the ids are others."""
    embedding = ours.get(EMBEDDING)
    if embedding is None or not embedding[charset.pad_id].any():
        return
    zero = [int(row) for row in np.flatnonzero(~embedding.any(axis=1))]
    name = next(e.name for e in entries(source.dialect) if e.path == EMBEDDING)
    if source.reads_pad_row or zero:
        text = (
            f"{name}: row {charset.pad_id}, the padding token of a dictionary of "
            f"{len(charset.characters)} characters in {source.title}, must be zero"
        )
        if zero:
            text += (
                f", but row {zero[0]} is: the dictionary's order or the source is wrong"
            )
        findings.problems.append(text)
        return
    embedding[charset.pad_id] = 0.0
    findings.notes.append(
        f"{name}: row {charset.pad_id} (padding) was not zero and is now: "
        f"{source.title} never reads it"
    )


def convert(
    source: str,
    state: Mapping[str, np.ndarray],
    *,
    characters: str | None = None,
    max_len: int | None = None,
    width: str = "base",
) -> tuple[Imported | None, Findings]:
    """Converts a checkpoint; see `import_state`.

    Returns None in place of the network if the findings hold a problem.
    """
    kind = find_source(source)
    charset = kind.charset(DICT90 if characters is None else characters)
    model = kind.model(charset, max_len=max_len or kind.max_len, width=width)
    findings = Findings()
    _check_names(kind, set(state), findings)
    ours = _check_arrays(kind, model, charset, state, findings)
    _check_pad_row(kind, charset, ours, findings)
    if findings.problems:
        return None, findings
    return Imported(model, unflatten(ours), charset, kind.preprocessing), findings


def import_state(
    source: str,
    state: Mapping[str, np.ndarray],
    *,
    characters: str | None = None,
    max_len: int | None = None,
    width: str = "base",
) -> Imported:
    """Returns a published checkpoint as this project's network.

    Args:
      source: "mmocr" (1.x), "mmocr0" (0.x) or "paddle".
      state: the checkpoint's arrays by parameter name, in the published layout.
      characters: the dictionary it was trained on, in order; the published one of 90
        characters if not given.
      max_len: decoding steps; the released models' 30 (MMOCR) or 40 (PaddleOCR) if not
        given.
      width: of the backbone, see `RobustScanner`; the published one is "base".

    Raises:
      CheckpointError: tensors are missing, left over, of another shape or not finite,
        or the dictionary does not fit; the message names them.
    """
    imported, findings = convert(
        source, state, characters=characters, max_len=max_len, width=width
    )
    if imported is None:
        raise CheckpointError(
            f"not a {find_source(source).title} checkpoint of this network: "
            f"{listed(findings.problems)}"
        )
    return imported


def export_state(
    source: str,
    model: RobustScanner,
    variables: Mapping[str, Any],
    *,
    num_batches_tracked: int = 0,
) -> dict[str, np.ndarray]:
    """Returns the variables under a published implementation's names and layout.

    `import_state` of the result gives the same bits, and the other way round, but for
    two tensors that no result depends on: MMOCR's counters of batches, which are not
    kept (all get `num_batches_tracked`), and a PaddleOCR embedding's padding row, which
    import sets to zero. PaddleOCR's second names of LSTM tensors are listed.

    Raises:
      ValueError: the model's token ids or classes are not those of the source.
    """
    kind = find_source(source)
    ids = kind.token_ids(model.num_tokens - 3)
    ids["start_id"] = ids["end_id"]
    for field in ("num_classes", "start_id", "end_id", "pad_id"):
        ours, theirs = getattr(model, field), ids[field]
        if ours != theirs:
            raise ValueError(
                f"cannot be exported to {kind.title}: its {field} is {theirs} "
                f"for {model.num_tokens} tokens, the model's is {ours}"
            )
    leaves = flatten(variables)
    state: dict[str, np.ndarray] = {}
    for entry in entries(kind.dialect):
        array = entry.to_published(np.asarray(leaves[entry.path]))
        state[entry.name] = np.ascontiguousarray(array)
        if entry.alias:
            state[entry.alias] = state[entry.name]
    for name in counters(kind.dialect):
        state[name] = np.array(num_batches_tracked, np.int64)
    return state
