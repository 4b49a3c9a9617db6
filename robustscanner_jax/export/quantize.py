"""The backbone of an ONNX graph in 8-bit integers; ONNX Runtime's tool does the work.

Convolutions are 95 % of the time, and nearly all of them are the backbone's. What
follows it, attention and decoding, adds little to the time and stays in float32.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from robustscanner_jax.export.onnx_encoder import BACKBONE
from robustscanner_jax.packages import optional

QUANTIZED = ("Conv", "Add", "MaxPool", "Relu")
# Images that the ranges are measured on together: bounds the memory, changes no range.
CALIBRATION_BATCH = 16


def quantized_nodes(graph: onnx.GraphProto) -> list[str]:
    """Returns the names of the nodes to quantise: the backbone without its last Relu.

    That Relu's output reaches the decoding loop through Reshape and Transpose. ONNX
    Runtime 1.32 moves a DequantizeLinear on through those, and aborts the process where
    it comes to a value that a Loop's body takes from outside.

    Raises:
      ValueError: the graph has no backbone, or another one ends it.
    """
    nodes = [node for node in graph.node if node.name.startswith(BACKBONE)]
    if not nodes or nodes[-1].op_type != "Relu":
        raise ValueError(f"expected nodes {BACKBONE}* that end with a Relu")
    return [node.name for node in nodes[:-1] if node.op_type in QUANTIZED]


def _batches(image: np.ndarray, width: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, len(width), CALIBRATION_BATCH):
        chunk = slice(start, start + CALIBRATION_BATCH)
        yield {"image": image[chunk], "width": width[chunk]}


def _calibration(image: np.ndarray, width: np.ndarray) -> Any:
    from onnxruntime import quantization

    class Batches(quantization.CalibrationDataReader):
        def __init__(self):
            self._rest = _batches(image, width)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._rest, None)

    return Batches()


def _sort(graph: onnx.GraphProto, original: onnx.GraphProto) -> None:
    """Puts the Loop and what follows it last again.

    The tool sorts the nodes, and does not see what a Loop's body takes from outside.
    """
    names = [node.name for node in original.node]
    first = [node.op_type for node in original.node].index("Loop")
    last = set(names[first:])
    moved = sorted(graph.node, key=lambda node: node.name in last)  # stable
    del graph.node[:]
    graph.node.extend(moved)


def quantize(
    proto: onnx.ModelProto, image: np.ndarray, width: np.ndarray
) -> onnx.ModelProto:
    """Returns the graph with its backbone in 8-bit integers.

    Weights are signed, with a scale for each channel; activations unsigned, with the
    range that they had on the images.

    Args:
      proto: as `onnx_graph.build` returns it; it stays as it is.
      image: `[n, h, w, 3]` uint8, images like those that will be read.
      width: `[n]` int32, pixels of content.

    Raises:
      ValueError: a package is missing, or the graph has no backbone.
    """
    quantization: Any = optional("onnxruntime.quantization", "--dtype=int8")
    marked = onnx.ModelProto()
    marked.CopyFrom(proto)
    # The tool asks for its pre-processing, and warns without. There is nothing left to
    # do for it: batch norm is folded, the shapes are inferred, and it needs sympy.
    onnx.helper.set_model_props(marked, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "before.onnx"), Path(folder, "after.onnx")
        onnx.save(marked, before)
        quantization.quantize_static(
            before,
            after,
            _calibration(image, width),
            quant_format=quantization.QuantFormat.QDQ,
            nodes_to_quantize=quantized_nodes(proto.graph),
            op_types_to_quantize=list(QUANTIZED),
            per_channel=True,
            # Weights of 7 bits: a processor without VNNI adds pairs of products in 16
            # bits, where 8 would saturate unseen. Of 1,162 real crops 96.6 % keep the
            # text of `small` and 94.0 % that of `tiny`; with 8 bits 96.7 and 94.5 %.
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        found = onnx.load(after)
    _sort(found.graph, proto.graph)
    del found.metadata_props[:]
    found.producer_name = proto.producer_name
    onnx.checker.check_model(found, full_check=True)
    return found
