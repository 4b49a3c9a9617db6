"""What computes an exported graph: JAX, ONNX Runtime or OpenVINO.

Each function opens the graph of an artefact's folder and returns a call from rows to
`DecodedRows`. The packages are optional and imported when they are asked for.
"""

import importlib
import importlib.util
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Literal, cast

import numpy as np

from robustscanner_jax.artefact import GRAPH_FILES, WEIGHTS_FILE, GraphFormat
from robustscanner_jax.cores import allowed_cores
from robustscanner_jax.packages import optional
from robustscanner_jax.reading import DecodedRows

Decode = Callable[[np.ndarray, np.ndarray], DecodedRows]
Backend = Literal["jax", "onnxruntime", "openvino"]
# The first installed one is taken by "auto": the order is the measured speed on CPU.
BACKENDS: dict[GraphFormat, tuple[Backend, ...]] = {
    "stablehlo": ("jax",),
    "onnx": ("openvino", "onnxruntime"),
}


def is_installed(name: str) -> bool:
    """Returns whether a package can be imported; imports nothing."""
    return importlib.util.find_spec(name) is not None


def choose(graph_format: GraphFormat, wanted: str) -> Backend:
    """Returns the backend for a graph: the wanted one, or the fastest installed.

    Raises:
      ValueError: the wanted one does not read this format, or none is installed.
    """
    known = BACKENDS[graph_format]
    if wanted == "auto":
        installed: list[Backend] = [name for name in known if is_installed(name)]
        if not installed:
            raise ValueError(
                f"reading an export in format {graph_format} needs one of the packages "
                f"{', '.join(known)}: pip install {known[0]}"
            )
        return installed[0]
    chosen: Backend | None = next((name for name in known if name == wanted), None)
    if chosen is None:
        raise ValueError(
            f"backend {wanted!r} does not read an export in format {graph_format}: "
            f"expected auto or one of {', '.join(known)}"
        )
    return chosen


def open_jax(folder: Path) -> Decode:
    """Opens a StableHLO graph on the first local device of JAX."""
    jax = optional("jax", "reading an export in format stablehlo")
    from jax import export

    from robustscanner_jax.weights import flatten, load_weights

    data = (folder / GRAPH_FILES["stablehlo"]).read_bytes()
    try:
        exported = export.deserialize(bytearray(data))
    except Exception as error:
        raise ValueError(
            f"{folder}: jax {jax.__version__} cannot read the graph: {error}"
        ) from error
    device = jax.local_devices()[0]
    if device.platform not in _platforms(exported.platforms):
        raise ValueError(
            f"{folder}: exported for {', '.join(exported.platforms)}, "
            f"this machine has {device.platform}"
        )
    leaves = jax.device_put(
        flatten(load_weights(folder / WEIGHTS_FILE).variables), device
    )
    call = jax.jit(exported.call)

    def decode(image: np.ndarray, width: np.ndarray) -> DecodedRows:
        ids, probabilities = call(leaves, *jax.device_put((image, width), device))
        return DecodedRows(np.asarray(ids), np.asarray(probabilities))

    return decode


def _platforms(names: tuple[str, ...]) -> set[str]:
    # A device of platform "cuda" calls itself "gpu".
    return {"gpu" if name in ("cuda", "rocm") else name for name in names}


def open_onnxruntime(folder: Path, *, threads: int = 0) -> Decode:
    """Opens an ONNX graph with ONNX Runtime; `threads` 0 takes every allowed core.

    Left to itself, ONNX Runtime takes every core of the machine and pins its threads
    there, whatever `taskset` or a container allow, and its idle threads spin. Spinning
    cost a third of the processor at batch 1 on two shared cores, and gained no time.
    """
    runtime = optional("onnxruntime", "the backend onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or allowed_cores()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    session = runtime.InferenceSession(
        folder / GRAPH_FILES["onnx"],
        options,
        providers=[
            name
            for name in ("CUDAExecutionProvider", "CPUExecutionProvider")
            if name in runtime.get_available_providers()
        ],
    )

    def decode(image: np.ndarray, width: np.ndarray) -> DecodedRows:
        inputs = {"image": image, "width": np.asarray(width, np.int32)}
        return DecodedRows(*session.run(["ids", "probabilities"], inputs))

    return decode


def _import_openvino() -> ModuleType:
    """Imports OpenVINO without its telemetry, which reports home unasked."""
    name = "openvino_telemetry"
    present = sys.modules.get(name)
    sys.modules[name] = cast(ModuleType, None)  # its import fails, a stub takes over
    try:
        return optional("openvino", "the backend openvino")
    finally:
        del sys.modules[name]
        if present is not None:
            sys.modules[name] = present


def open_openvino(
    folder: Path, *, threads: int = 0, precision: str = "float32"
) -> Decode:
    """Opens an ONNX graph with OpenVINO on the CPU.

    Args:
      folder: the artefact.
      threads: 0 takes every core.
      precision: "float32", or "bfloat16" for processors that have it: faster, and not
        exact. OpenVINO would choose by itself; here the caller does.
    """
    openvino = _import_openvino()
    core = openvino.Core()
    hint = {"float32": openvino.Type.f32, "bfloat16": openvino.Type.bf16}[precision]
    settings = {
        "INFERENCE_PRECISION_HINT": hint,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    compiled = core.compile_model(folder / GRAPH_FILES["onnx"], "CPU", settings)
    request = compiled.create_infer_request()
    lock = threading.Lock()  # a request computes one batch at a time

    def decode(image: np.ndarray, width: np.ndarray) -> DecodedRows:
        inputs = {"image": image, "width": np.asarray(width, np.int32)}
        with lock:
            found = request.infer(inputs)
            return DecodedRows(found["ids"].copy(), found["probabilities"].copy())

    return decode


def open_graph(
    folder: Path, backend: Backend, *, threads: int = 0, precision: str = "float32"
) -> Decode:
    """Opens the graph of a folder; checks neither manifest nor self-test.

    Raises:
      ValueError: the package is missing, or `precision` is not for this backend.
    """
    if precision != "float32" and backend != "openvino":
        raise ValueError(
            f"precision {precision!r} is an option of the backend openvino, "
            f"got backend {backend!r}"
        )
    if backend == "jax":
        return open_jax(folder)
    if backend == "onnxruntime":
        return open_onnxruntime(folder, threads=threads)
    return open_openvino(folder, threads=threads, precision=precision)
