"""`--mode=import`: a published checkpoint becomes a weights file."""

from pathlib import Path

from robustscanner_jax.checksum import file_sha256
from robustscanner_jax.reference.certificate import Certificate, examine
from robustscanner_jax.reference.convert import find_source
from robustscanner_jax.reference.files import read_checkpoint
from robustscanner_jax.weights import StorageDtype, Weights, save_weights


def run_import(
    source: str,
    checkpoint: str | Path,
    output: str | Path,
    *,
    golden: str | Path | None = None,
    characters: str | None = None,
    max_len: int | None = None,
    dtype: StorageDtype = "float32",
) -> Certificate:
    """Reads a checkpoint, checks it, and writes a weights file if it passes.

    A checkpoint that fails leaves `output` as it was; see the certificate's problems.

    Args:
      source: "mmocr" (1.x), "mmocr0" (0.x) or "paddle".
      checkpoint: a `.pth`, `.pdparams` or `.npz` file.
      output: the weights file to write.
      golden: `.npz` of the published implementation's outputs on this checkpoint.
      characters, max_len: see `convert.import_state`.
      dtype: of the kernels in the weights file.

    Raises:
      CheckpointError: the checkpoint or the golden file cannot be read.
      ValueError: no such source, or a value outside float16's range.
    """
    kind = find_source(source)
    checkpoint = Path(checkpoint)
    state, notes = read_checkpoint(checkpoint)
    imported, certificate = examine(
        source, state, golden, characters=characters, max_len=max_len, notes=notes
    )
    if imported is None or not certificate.ok:
        return certificate
    card = {
        "source": kind.title,
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": file_sha256(checkpoint),
        "notes": list(certificate.notes),
        "deviations": {d.stage: d.largest for d in certificate.deviations},
    }
    weights = Weights(
        imported.model,
        imported.variables,
        imported.charset,
        imported.preprocessing,
        card,
    )
    save_weights(output, weights, dtype=dtype)
    return certificate
