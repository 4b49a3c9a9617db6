"""One file of weights: arrays, charset, model, preprocessing and where they come from.

A safetensors file. Its tensors are named by their path in the Flax tree
(`params/backbone/stem1/conv/kernel`); its metadata holds the rest as JSON strings, so
that a weights file can never be read with the wrong dictionary or the wrong resize.
"""

import dataclasses
import functools
import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

import robustscanner_jax
from robustscanner_jax.charset import Charset
from robustscanner_jax.models.robustscanner import CHANNEL_SCALE, RobustScanner
from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.whole_file import write_whole

FORMAT = "robustscanner_jax.weights"  # the metadata's only key, see save_weights
FORMAT_VERSION = 1
StorageDtype = Literal["float32", "float16"]
# How many differences an error message lists; a wrong file differs everywhere.
MAX_LISTED = 8


@dataclasses.dataclass(frozen=True)
class Weights:
    """Everything that reading an image needs.

    Attributes:
      model: its `dtype` is the caller's choice: `weights.model.clone(dtype=...)`.
      variables: the collections `params` and `batch_stats`, float32.
      charset: the classifier's tokens.
      preprocessing: what the network was trained on.
      card: anything worth knowing: training data, steps, seed, accuracy, source. JSON
        values only.
    """

    model: RobustScanner
    variables: dict[str, Any]
    charset: Charset
    preprocessing: Preprocessing
    card: dict[str, Any] = dataclasses.field(default_factory=dict)


def flatten(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the leaves of a tree of variables by their path, joined with slashes."""
    return traverse_util.flatten_dict(nn.unbox(dict(variables)), sep="/")


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tree of `flatten`."""
    return traverse_util.unflatten_dict(dict(leaves), sep="/")


def expected_shapes(model: RobustScanner) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each variable of the model by its path; computes nothing."""
    return _expected_shapes(cast(Hashable, model))


@functools.lru_cache(maxsize=16)
def _expected_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    tree = jax.eval_shape(
        functools.partial(model.init, train=False),
        jax.random.key(0),
        jnp.zeros((1, 48, 160, 3)),
        jnp.zeros(1),
        jnp.zeros((1, model.max_len), jnp.int32),
    )
    return {path: tuple(leaf.shape) for path, leaf in flatten(tree).items()}


def model_config(model: RobustScanner) -> dict[str, Any]:
    """Returns the options of the model in use, as JSON values.

    Those of its computation and its training are left out.
    """
    names = [f.name for f in dataclasses.fields(model) if f.init]
    computation = ("dtype", "unroll", "training_factors", "train_backbone")
    left_out = ("parent", "name", *computation)
    return {n: getattr(model, n) for n in names if n not in left_out}


def check_charset(model: RobustScanner, charset: Charset) -> list[str]:
    """Returns how the charset and the model differ; empty when they fit."""
    pairs = (
        ("classes", charset.num_classes, model.num_classes),
        ("tokens", charset.num_tokens, model.num_tokens),
        ("start id", charset.end_id, model.start_id),
        ("end id", charset.end_id, model.end_id),
        ("pad id", charset.pad_id, model.pad_id),
    )
    return [
        f"the charset of {len(charset.characters)} characters has {what} {ours}, "
        f"the model {theirs}"
        for what, ours, theirs in pairs
        if ours != theirs
    ]


def _differences(
    model: RobustScanner, charset: Charset, arrays: Mapping[str, np.ndarray]
) -> list[str]:
    found = check_charset(model, charset)
    expected = expected_shapes(model)
    found += [f"{path} is missing" for path in expected if path not in arrays]
    extra = sorted(set(arrays) - set(expected))
    found += [f"{path} is not part of the model" for path in extra]
    for path, shape in expected.items():
        if path not in arrays:
            continue
        array = arrays[path]
        if array.shape != shape:
            found.append(f"{path}: expected shape {shape}, got {array.shape}")
        elif not np.isfinite(array).all():
            found.append(f"{path} holds values that are not finite")
    return found


def listed(differences: list[str]) -> str:
    """Returns the first differences, and how many more there are, as one line."""
    text = "; ".join(differences[:MAX_LISTED])
    more = len(differences) - MAX_LISTED
    return f"{text}; and {more} more" if more > 0 else text


def _store(path: str, array: np.ndarray, dtype: StorageDtype) -> np.ndarray:
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{path}: expected floating-point values, got {array.dtype}")
    # Vectors are 0.1 % of the values: batch statistics, biases and scales stay exact.
    if dtype == "float32" or array.ndim < 2:
        return np.ascontiguousarray(array, np.float32)
    largest = float(np.abs(array).max(initial=0.0))
    if largest > float(np.finfo(np.float16).max):
        raise ValueError(
            f"{path}: {largest:g} is outside float16's range, store float32 instead"
        )
    return np.ascontiguousarray(array, np.float16)


def save_weights(
    path: str | Path, weights: Weights, *, dtype: StorageDtype = "float32"
) -> None:
    """Writes a weights file: whole, or not at all.

    Args:
      path: of the file; its folder is made, an older file is replaced.
      weights: what to write.
      dtype: of kernels and embeddings on disk; float16 halves the file. Vectors (batch
        statistics, biases, scales) are float32 either way.

    Raises:
      ValueError: variables, charset and model do not fit each other, a value is not
        finite, or lies outside float16's range.
    """
    path = Path(path)
    if dtype not in ("float32", "float16"):
        raise ValueError(f"dtype must be float32 or float16, got {dtype!r}")
    arrays = {p: np.asarray(a) for p, a in flatten(weights.variables).items()}
    found = _differences(weights.model, weights.charset, arrays)
    if found:
        raise ValueError(f"weights for {path}: {listed(found)}")
    metadata = {
        "format_version": FORMAT_VERSION,
        "package_version": robustscanner_jax.__version__,
        "charset": dataclasses.asdict(weights.charset),
        "model": model_config(weights.model),
        "preprocessing": dataclasses.asdict(weights.preprocessing),
        "card": weights.card,
    }
    # One string: safetensors writes several in random order, and the same weights
    # should be the same bytes.
    data = safetensors.numpy.save(
        {p: _store(p, arrays[p], dtype) for p in sorted(arrays)},
        {FORMAT: json.dumps(metadata, sort_keys=True)},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)


def _read(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(f"weights file {path}: {reason}") from error
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"weights file {path}: not a whole safetensors file ({error})"
        ) from error
    return metadata, arrays


def _build(what: str, kind: type, fields: dict[str, Any]) -> Any:
    """Returns `kind(**fields)`; the message of an error names `what` does not fit."""
    known = {f.name for f in dataclasses.fields(kind) if f.init}
    if unknown := sorted(set(fields) - known):
        raise ValueError(f"{what}: unknown {unknown}")
    try:
        return kind(**fields)
    except TypeError as error:
        raise ValueError(f"{what}: {error}") from error


def _assemble(metadata: dict[str, Any], arrays: dict[str, np.ndarray]) -> Weights:
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"expected format version {FORMAT_VERSION}, got {version}, "
            f"written by package {metadata.get('package_version')}"
        )
    missing = {"charset", "model", "preprocessing", "card"} - set(metadata)
    if missing:
        raise ValueError(f"its metadata lacks {sorted(missing)}")
    charset = _build("charset", Charset, metadata["charset"])
    model = _build("model", RobustScanner, metadata["model"])
    if model.width not in CHANNEL_SCALE:
        raise ValueError(
            f"model: width must be one of {list(CHANNEL_SCALE)}, got {model.width!r}"
        )
    preprocessing = _build("preprocessing", Preprocessing, metadata["preprocessing"])
    arrays = {name: array.astype(np.float32) for name, array in arrays.items()}
    found = _differences(model, charset, arrays)
    if found:
        raise ValueError(listed(found))
    return Weights(model, unflatten(arrays), charset, preprocessing, metadata["card"])


def load_weights(path: str | Path) -> Weights:
    """Reads a weights file; its variables are float32 numpy arrays.

    Raises:
      ValueError: the file is no weights file, is cut short, has another format version,
        or its parts do not fit each other; the message names the difference.
    """
    path = Path(path)
    raw, arrays = _read(path)
    if FORMAT not in raw:
        raise ValueError(
            f"weights file {path}: a safetensors file, but not one of this project's; "
            "checkpoints of other frameworks are read by --mode=import"
        )
    try:
        return _assemble(json.loads(raw[FORMAT]), arrays)
    except ValueError as error:
        raise ValueError(f"weights file {path}: {error}") from error
