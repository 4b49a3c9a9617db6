"""The folder of an exported network: graph, manifest, self-test.

    manifest.json      charset, preprocessing, versions, checksums of the other files
    selftest.npz       rows of pixels, and what was read in them on export
    model.stablehlo, weights.safetensors        of the format "stablehlo"
    model.onnx                                  of the format "onnx"

Every graph has the same inputs, `image` `[b, h, w, 3]` uint8 and `width` `[b]` int32,
and the same outputs, `ids` `[b, t]` int32 and `probabilities` `[b, t]` float32. No JAX
in here: an ONNX graph is read where JAX is not installed.
"""

import dataclasses
import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from robustscanner_jax.charset import Charset
from robustscanner_jax.checksum import file_sha256
from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.reading import DecodedRows

FORMAT = "robustscanner_jax.artefact"
FORMAT_VERSION = 1
GraphFormat = Literal["stablehlo", "onnx"]
GraphDtype = Literal["float32", "int8"]
GRAPH_FILES = {"stablehlo": "model.stablehlo", "onnx": "model.onnx"}
WEIGHTS_FILE = "weights.safetensors"
MANIFEST_FILE = "manifest.json"
SELF_TEST_FILE = "selftest.npz"
_EXPECTED = "a folder that --mode=export wrote"
# How far a probability may lie from the exporting machine's, by the precision of the
# reader and the dtype of the graph; the larger counts. Another processor sums in
# another order, another backend rounds to integers at other places. The comparison
# before writing is stricter.
SELF_TEST_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "int8": 0.1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """What is known of an exported network.

    Attributes:
      graph_format: "stablehlo" or "onnx".
      charset, preprocessing: as in the weights file.
      max_len: decoding steps.
      card: of the weights: training data, accuracy, source.
      comparison: with the live network, before the artefact was written.
      versions: of the packages that wrote it.
      dtype: "float32", or "int8" for a graph whose backbone computes in 8-bit integers;
        exports from before this field are float32.
    """

    graph_format: GraphFormat
    charset: Charset
    preprocessing: Preprocessing
    max_len: int
    card: dict[str, Any]
    comparison: dict[str, Any]
    versions: dict[str, str]
    dtype: GraphDtype = "float32"


@dataclasses.dataclass(frozen=True)
class SelfTest:
    """Rows and what the live network read in them, or the graph itself if it is int8.

    Attributes:
      image: `[n, h, w, 3]` uint8.
      width: `[n]` int32, pixels.
      ids, probabilities: `[n, t]`, see `DecodedRows`.
      texts: n texts.
    """

    image: np.ndarray
    width: np.ndarray
    ids: np.ndarray
    probabilities: np.ndarray
    texts: list[str]

    def failure(
        self, decoded: DecodedRows, charset: Charset, *, tolerance: float
    ) -> str | None:
        """Returns how `decoded` differs from what is expected, or None."""
        texts = [charset.to_text(row) for row in np.asarray(decoded.ids).tolist()]
        for number, (text, expected) in enumerate(zip(texts, self.texts, strict=True)):
            if text != expected:
                return f"image {number}: expected {expected!r}, got {text!r}"
        difference = float(np.abs(decoded.probabilities - self.probabilities).max())
        if not difference <= tolerance:
            return (
                f"probabilities differ by {difference:.2g}, "
                f"expected at most {tolerance:g}"
            )
        return None


def _digest(fields: dict[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def is_artefact(folder: Path) -> bool:
    """Returns whether a folder holds an exported network, of any version, alone."""
    try:
        fields = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        return False
    known = {MANIFEST_FILE, *fields.get("files", ())}
    return {path.name for path in folder.iterdir()} <= known


def write(folder: Path, manifest: Manifest, self_test: SelfTest) -> None:
    """Adds manifest and self-test to a folder that holds the graph."""
    arrays = dataclasses.asdict(self_test)
    arrays["texts"] = np.array(self_test.texts, dtype=np.str_)
    np.savez(folder / SELF_TEST_FILE, **arrays)
    fields: dict[str, Any] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **dataclasses.asdict(manifest),
        "files": {
            path.name: {"sha256": file_sha256(path), "bytes": path.stat().st_size}
            for path in sorted(folder.iterdir())
        },
    }
    # Round trip first: the digest is of what a reader will see.
    fields = json.loads(json.dumps(fields))
    fields["digest"] = _digest(fields)
    text = json.dumps(fields, indent=2, ensure_ascii=False) + "\n"
    (folder / MANIFEST_FILE).write_text(text, encoding="utf-8")


def _manifest_fields(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise ValueError(f"{path}: not the manifest of an exported network")
    if fields.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path}: expected format version {FORMAT_VERSION}, "
            f"got {fields.get('format_version')}; export the weights again"
        )
    if fields.pop("digest", None) != _digest(fields):
        raise ValueError(f"{path}: changed since it was written (digest)")
    return fields


def _lack(folder: Path) -> str:
    if not folder.exists():
        return "not found"
    if not folder.is_dir():
        return "no export, it is a file"
    return f"no export, it has no {MANIFEST_FILE}"


def read(folder: Path) -> tuple[Manifest, SelfTest]:
    """Reads and checks a folder, all but the self-test's result.

    Raises:
      ValueError: no artefact, another format version, or a file that is missing or was
        changed; the message names it.
    """
    if not (folder / MANIFEST_FILE).is_file():
        raise ValueError(f"{folder}: {_lack(folder)}; expected {_EXPECTED}")
    fields = _manifest_fields(folder / MANIFEST_FILE)
    for name, known in fields["files"].items():
        path = folder / name
        if not path.is_file():
            raise ValueError(f"{path}: missing from the exported network")
        if (
            path.stat().st_size != known["bytes"]
            or file_sha256(path) != known["sha256"]
        ):
            raise ValueError(f"{path}: changed since it was written (checksum)")
    values = {
        field.name: fields[field.name]
        for field in dataclasses.fields(Manifest)
        # A field with a default is newer than the format version.
        if field.name in fields or field.default is dataclasses.MISSING
    }
    values["charset"] = Charset(**values["charset"])
    values["preprocessing"] = Preprocessing(**values["preprocessing"])
    try:
        with np.load(folder / SELF_TEST_FILE) as arrays:
            test = SelfTest(
                **{f.name: arrays[f.name] for f in dataclasses.fields(SelfTest)}
            )
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{folder / SELF_TEST_FILE}: {error}") from error
    manifest = Manifest(**values)
    if manifest.dtype not in (known := get_args(GraphDtype)):
        raise ValueError(
            f"{folder / MANIFEST_FILE}: expected dtype {' or '.join(known)}, "
            f"got {manifest.dtype!r}"
        )
    return manifest, dataclasses.replace(test, texts=list(map(str, test.texts)))
