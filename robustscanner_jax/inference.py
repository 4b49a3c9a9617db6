"""Reading images with an exported network: no config, no checkpoint, JAX only if asked.

reader = robustscanner_jax.load_artefact("exported/")
reader.read("sign.jpg").text
"""

from pathlib import Path

import numpy as np

from robustscanner_jax import artefact, backends
from robustscanner_jax.artefact import Manifest
from robustscanner_jax.reading import DecodedRows, Reader, check_batch_size

PRECISIONS = ("float32", "bfloat16")


class ArtefactReader(Reader):
    """Reads word crops with an exported network; made by `load_artefact`.

    Attributes:
      weights: the manifest, which has `charset`, `preprocessing` and `card` as the
        weights of a live `Recognizer` do.
      backend: "jax", "onnxruntime" or "openvino".
    """

    def __init__(
        self,
        manifest: Manifest,
        decode: backends.Decode,
        *,
        backend: backends.Backend,
        batch_size: int,
    ):
        check_batch_size(batch_size)
        self.weights = manifest
        self.charset = manifest.charset
        self.preprocessing = manifest.preprocessing
        self.batch_size = batch_size
        # JAX compiles for each size of a batch; the others take any size as it comes.
        self.smallest_batch = 1 if backend == "jax" else 0
        self.backend = backend
        self._decode = decode

    def decode(self, image: np.ndarray, width: np.ndarray) -> DecodedRows:
        """Decodes uint8 rows `[b, h, w, 3]` with content widths `[b]` in pixels."""
        return self._decode(image, width)


def load_artefact(
    folder: str | Path,
    backend: str = "auto",
    *,
    batch_size: int = 64,
    threads: int = 0,
    precision: str = "float32",
) -> ArtefactReader:
    """Opens the folder of an export and checks it: files, version, self-test.

    Args:
      folder: what `--mode=export` wrote.
      backend: "jax" for format stablehlo; "onnxruntime" or "openvino" for format onnx;
        "auto" takes openvino where it is installed, else onnxruntime.
      batch_size: most rows computed at once.
      threads: of onnxruntime and openvino; 0 takes every core.
      precision: "float32", or "bfloat16" with openvino; of an int8 graph it is what is
        not in integers.

    Raises:
      ValueError: no artefact, a missing or changed file, another format version, no
        package that reads it, a self-test that fails, or an argument out of range.
    """
    folder = Path(folder)
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}"
        )
    manifest, self_test = artefact.read(folder)
    chosen = backends.choose(manifest.graph_format, backend)
    decode = backends.open_graph(folder, chosen, threads=threads, precision=precision)
    failure = self_test.failure(
        decode(self_test.image, self_test.width),
        manifest.charset,
        tolerance=max(
            artefact.SELF_TEST_TOLERANCE[name] for name in (precision, manifest.dtype)
        ),
    )
    if failure:
        raise ValueError(f"{folder}: the self-test fails with {chosen}: {failure}")
    return ArtefactReader(manifest, decode, backend=chosen, batch_size=batch_size)
