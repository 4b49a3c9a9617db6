"""The encoder as ONNX nodes: backbone, position branch, everything but the loop."""

from typing import Any, NamedTuple

import numpy as np

from robustscanner_jax.export.onnx_builder import GraphBuilder
from robustscanner_jax.models.attention import MASKED_LOGIT
from robustscanner_jax.models.resnet31 import STAGES, STEM_CHANNELS
from robustscanner_jax.preprocessing import Preprocessing

EPSILON = 1e-5  # of `models.batch_norm.BatchNorm`
BACKBONE = "backbone/"  # begins the names of its nodes


class EncodedNames(NamedTuple):
    """The values that decoding needs, by name."""

    keys: str  # [b, d, s]
    values: str  # [b, s, v]
    valid: str  # [b, 1, s] bool
    position_glimpses: str  # [b, t, v]


def map_size(rule: Preprocessing) -> tuple[int, int]:
    """Returns the (height, width) of the backbone's map in cells."""
    size = np.array([rule.height, rule.max_width])
    for stage in STAGES:
        size = -(-size // np.array(stage.pool))
    return int(size[0]), int(size[1])


def folded(conv: dict[str, Any], norm: dict[str, Any], stats: dict[str, Any]):
    """Returns kernel [o, i, h, w] and bias [o] of a convolution with its batch norm."""
    kernel = np.asarray(conv["kernel"], np.float64)
    factor = np.asarray(norm["scale"], np.float64) / np.sqrt(
        np.asarray(stats["var"], np.float64) + EPSILON
    )
    bias = np.asarray(conv.get("bias", 0.0), np.float64)
    bias = norm["bias"] + (bias - stats["mean"]) * factor
    kernel = (kernel * factor).transpose(3, 2, 0, 1)
    return kernel.astype(np.float32), bias.astype(np.float32)


def _conv(graph: GraphBuilder, x: str, kernel: np.ndarray, bias: np.ndarray) -> str:
    pad = kernel.shape[-1] // 2
    names = graph.constant(kernel, "kernel"), graph.constant(bias, "bias")
    return graph.add("Conv", x, *names, pads=[pad] * 4, kernel_shape=kernel.shape[2:])


def plain_conv(graph: GraphBuilder, x: str, params: dict[str, Any]) -> str:
    """Adds a Flax convolution without batch norm."""
    kernel = np.asarray(params["kernel"]).transpose(3, 2, 0, 1)
    return _conv(graph, x, np.ascontiguousarray(kernel), np.asarray(params["bias"]))


def backbone(
    graph: GraphBuilder, x: str, params: dict[str, Any], stats: dict[str, Any]
) -> str:
    """Adds ResNet31 on `[b, 3, h, w]`; returns `[b, v, h2, w2]`."""

    def conv_norm(x: str, *path: str) -> str:
        here, there = params, stats
        for name in path:
            here, there = here[name], there[name]
        return _conv(graph, x, *folded(here["conv"], here["norm"], there["norm"]))

    for number in range(1, len(STEM_CHANNELS) + 1):
        x = graph.add("Relu", conv_norm(x, f"stem{number}"))
    for number, stage in enumerate(STAGES, start=2):
        if stage.pool != (1, 1):
            x = graph.add(
                "MaxPool", x, kernel_shape=stage.pool, strides=stage.pool, ceil_mode=1
            )
        for block in range(stage.blocks):
            name = f"stage{number}_block{block}"
            y = graph.add("Relu", conv_norm(x, name, "conv1"))
            y = conv_norm(y, name, "conv2")
            if "shortcut" in params[name]:
                x = conv_norm(x, name, "shortcut")
            x = graph.add("Relu", graph.add("Add", x, y))
        x = graph.add("Relu", conv_norm(x, f"stage{number}_conv"))
    return x


def to_iofc(gates: np.ndarray) -> np.ndarray:
    """Reorders the last axis from our gates i, f, g, o to ONNX's i, o, f, c."""
    i, f, g, o = np.split(np.asarray(gates, np.float32), 4, axis=-1)
    return np.concatenate([i, o, f, g], axis=-1)


def sequence_lstm(graph: GraphBuilder, x: str, params: dict[str, Any]) -> str:
    """Adds the stacked LSTM on `[t, n, c]`; returns `[t, n, d]`."""
    layers = len(params) // 4
    for layer in range(layers):
        kernel, recurrent, input_bias, recurrent_bias = (
            to_iofc(params[f"layer{layer}_{name}"])
            for name in (
                "input_kernel",
                "recurrent_kernel",
                "input_bias",
                "recurrent_bias",
            )
        )
        x = graph.add(
            "LSTM",
            x,
            graph.constant(kernel.T[None], "input_kernel"),
            graph.constant(recurrent.T[None], "recurrent_kernel"),
            graph.constant(np.concatenate([input_bias, recurrent_bias])[None], "bias"),
            hidden_size=len(recurrent),
        )  # [t, 1, n, d]
        x = graph.add("Squeeze", x, graph.constant(np.array([1])))
    return x


def valid_cells(
    graph: GraphBuilder, width: str, *, rule: Preprocessing, rounding: str
) -> str:
    """Adds `models.attention.valid_cells`; returns `[b, 1, s]` bool."""
    rows, columns = map_size(rule)
    content = graph.cast(width, "float32")
    content = graph.add("Mul", content, graph.constant(float(columns)))
    content = graph.add("Div", content, graph.constant(float(rule.max_width)))
    if rounding == "ceil":
        content = graph.add("Sub", content, graph.constant(1e-4))
        content = graph.add("Ceil", content)
    else:
        content = graph.add("Floor", graph.add("Add", content, graph.constant(0.5)))
    content = graph.add("Max", content, graph.constant(1.0))
    content = graph.reshape(content, -1, 1, 1)
    column = np.tile(np.arange(columns, dtype=np.float32), rows)[None, None, :]
    return graph.add("Less", graph.constant(column, "column"), content)


def attend(graph: GraphBuilder, queries: str, keys: str, valid: str) -> str:
    """Adds attention weights `[b, t, s]` of queries `[b, t, d]` on keys `[b, d, s]`."""
    logits = graph.add("MatMul", queries, keys)
    logits = graph.add("Where", valid, logits, graph.constant(MASKED_LOGIT))
    return graph.add("Softmax", logits, axis=-1)


def encoder(
    graph: GraphBuilder,
    image: str,
    width: str,
    variables: dict[str, Any],
    *,
    rule: Preprocessing,
    rounding: str,
    steps: int,
) -> EncodedNames:
    """Adds everything that decoding needs of the images, see `RobustScanner.encode`."""
    params, stats = variables["params"], variables["batch_stats"]
    rows, columns = map_size(rule)
    x = graph.cast(graph.transpose(image, 0, 3, 1, 2), "float32")
    x = graph.add("Sub", x, graph.constant(float(rule.mean)))
    x = graph.add("Div", x, graph.constant(float(rule.scale)))
    with graph.part(BACKBONE):
        values = backbone(graph, x, params["backbone"], stats["backbone"])
    keys = plain_conv(graph, values, params["reduction"])
    d, v = (
        params["reduction"]["kernel"].shape[-1],
        params["reduction"]["kernel"].shape[2],
    )

    position = params["position"]["position_aware"]
    x = graph.transpose(keys, 3, 0, 2, 1)  # [columns, b, rows, d]
    x = sequence_lstm(graph, graph.reshape(x, columns, -1, d), position["lstm"])
    x = graph.transpose(graph.reshape(x, columns, -1, rows, d), 1, 3, 2, 0)
    x = graph.add("Relu", plain_conv(graph, x, position["mix1"]))
    position_keys = graph.reshape(plain_conv(graph, x, position["mix2"]), 0, d, -1)

    valid = valid_cells(graph, width, rule=rule, rounding=rounding)
    queries = np.asarray(params["position"]["embedding"])[None, :steps]
    values = graph.transpose(graph.reshape(values, 0, v, -1), 0, 2, 1)
    weights = attend(graph, graph.constant(queries, "queries"), position_keys, valid)
    glimpses = graph.add("MatMul", weights, values)
    return EncodedNames(graph.reshape(keys, 0, d, -1), values, valid, glimpses)
