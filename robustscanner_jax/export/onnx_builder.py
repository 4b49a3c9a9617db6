"""Nodes and constants of one ONNX graph, written as calls."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Of the operators and the file: nothing newer is needed, and ONNX Runtime reads it from
# 1.18 on.
OPSET = 21
IR_VERSION = 10

ELEMENT_TYPES = {
    "float32": TensorProto.FLOAT,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}


def value_info(
    name: str, dtype: str, shape: Sequence[int | str] | None
) -> onnx.ValueInfoProto:
    """Returns the declaration of a graph's input or output."""
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[dtype], shape)


class GraphBuilder:
    """Collects nodes; values are named by strings.

    Attributes:
      prefix: of every name: a loop's body must not repeat the names around it.
    """

    def __init__(self, prefix: str = ""):
        self.prefix = prefix
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._count = 0

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{self.prefix}{what}_{self._count}"

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Puts `name` before the names of what is added inside the block."""
        before, self.prefix = self.prefix, self.prefix + name
        try:
            yield
        finally:
            self.prefix = before

    def constant(self, array: Any, name: str = "constant") -> str:
        """Adds a constant and returns its name; Python floats become float32."""
        array = np.asarray(array)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        full = self._name(name)
        self._constants.append(numpy_helper.from_array(array, full))
        return full

    def add(
        self,
        op: str,
        *inputs: str,
        outputs: int | Sequence[str] = 1,
        **attributes: Any,
    ) -> Any:
        """Adds a node; returns the name of its output, or a list of several."""
        if isinstance(outputs, int):
            outputs = [self._name(op) for _ in range(outputs)]
        self._nodes.append(
            helper.make_node(
                op, list(inputs), list(outputs), name=self._name("node"), **attributes
            )
        )
        return outputs[0] if len(outputs) == 1 else list(outputs)

    def reshape(self, value: str, *shape: int) -> str:
        """Returns `value` in another shape: 0 keeps a size, -1 is what is left."""
        return self.add("Reshape", value, self.constant(np.array(shape, np.int64)))

    def transpose(self, value: str, *order: int) -> str:
        """Returns `value` with its axes in another order."""
        return self.add("Transpose", value, perm=order)

    def cast(self, value: str, dtype: str) -> str:
        """Returns `value` as another element type."""
        return self.add("Cast", value, to=ELEMENT_TYPES[dtype])

    def graph(
        self,
        name: str,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
    ) -> onnx.GraphProto:
        """Returns everything that was added, as a graph."""
        return helper.make_graph(
            self._nodes, name, list(inputs), list(outputs), self._constants
        )
