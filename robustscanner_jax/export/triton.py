"""A model repository for NVIDIA Triton: the ONNX graph and how it is served."""

from pathlib import Path

from robustscanner_jax import artefact
from robustscanner_jax.artefact import Manifest
from robustscanner_jax.export.run import Rows, export_artefact
from robustscanner_jax.staging import staged
from robustscanner_jax.weights import Weights

MODEL_NAME = "robustscanner"
CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [
  {{
    name: "image"
    data_type: TYPE_UINT8
    dims: [ {height}, {width}, 3 ]
  }},
  {{
    # Content width in pixels. Requests send [batch, 1], the graph takes [batch].
    name: "width"
    data_type: TYPE_INT32
    dims: [ 1 ]
    reshape {{ shape: [ ] }}
  }}
]
output [
  {{
    name: "ids"
    data_type: TYPE_INT32
    dims: [ {steps} ]
  }},
  {{
    name: "probabilities"
    data_type: TYPE_FP32
    dims: [ {steps} ]
  }}
]
dynamic_batching {{
  max_queue_delay_microseconds: 2000
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: 10000000
    max_queue_size: 256
  }}
}}
"""


def config_text(manifest: Manifest, *, max_batch: int) -> str:
    """Returns `config.pbtxt`: dynamic batching, a bounded queue, a deadline."""
    if max_batch < 1:
        raise ValueError(f"max_batch must be at least 1, got {max_batch}")
    return CONFIG.format(
        name=MODEL_NAME,
        max_batch=max_batch,
        height=manifest.preprocessing.height,
        width=manifest.preprocessing.max_width,
        steps=manifest.max_len,
    )


def is_exported_model(folder: Path) -> bool:
    """Returns whether a folder holds a model of `export_triton` and nothing else."""
    names = {path.name for path in folder.iterdir()}
    return names <= {"config.pbtxt", "1"} and artefact.is_artefact(folder / "1")


def export_triton(
    weights: Weights,
    output: str | Path,
    *,
    rows: Rows,
    calibration: Rows | None = None,
    max_batch: int = 64,
) -> Manifest:
    """Writes a model repository, or nothing.

    The folder of version 1 is a complete export in format onnx: what a client needs to
    prepare images and to turn ids into text lies beside the graph, in manifest.json.

    Args:
      weights: what to export.
      output: the repository; its other models stay, an older export is replaced.
      rows, calibration: images to compare on and to calibrate with, see
        `export_artefact`.
      max_batch: most images that Triton computes together.

    Raises:
      ValueError: as `export_artefact`.
    """
    model = Path(output) / MODEL_NAME
    with staged(model, replaceable=is_exported_model) as folder:
        manifest = export_artefact(
            weights,
            folder / "1",
            graph_format="onnx",
            rows=rows,
            calibration=calibration,
        )
        config = config_text(manifest, max_batch=max_batch)
        (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    return manifest
