"""The whole network as one ONNX graph, written by hand: encoder and greedy decoding.

By hand, because no converter of JAX programs that was tried makes a valid graph of the
convolutions. Batch norm is folded into them. The decoding is a Loop, which ends when
every row of the batch has ended.
"""

from typing import Any

import numpy as np
import onnx
from onnx import helper

from robustscanner_jax.export.onnx_builder import (
    IR_VERSION,
    OPSET,
    GraphBuilder,
    value_info,
)
from robustscanner_jax.export.onnx_encoder import EncodedNames, attend, encoder
from robustscanner_jax.models.robustscanner import RobustScanner
from robustscanner_jax.weights import Weights


def _sum_bias(params: dict[str, Any], layer: int) -> np.ndarray:
    return np.asarray(params[f"layer{layer}_input_bias"]) + np.asarray(
        params[f"layer{layer}_recurrent_bias"]
    )


def _cell(graph: GraphBuilder, gates: str, memory: str, d: int) -> tuple[str, str]:
    """Adds one LSTM step from its gates `[b, 4d]`; returns hidden and memory."""
    i, f, g, o = graph.add(
        "Split", gates, graph.constant(np.full(4, d)), outputs=4, axis=-1
    )
    kept = graph.add("Mul", graph.add("Sigmoid", f), memory)
    new = graph.add("Mul", graph.add("Sigmoid", i), graph.add("Tanh", g))
    memory = graph.add("Add", kept, new)
    hidden = graph.add("Mul", graph.add("Sigmoid", o), graph.add("Tanh", memory))
    return hidden, memory


class _Decoder:
    """The body of the loop; what is the same in every step is computed outside."""

    def __init__(
        self,
        outer: GraphBuilder,
        encoded: EncodedNames,
        params: dict[str, Any],
        model: RobustScanner,
    ):
        self.encoded, self.params, self.model = encoded, params, model
        lstm = params["hybrid"]["lstm"]
        self.layers = len(lstm) // 4
        self.d = model.decoder_width
        # The lowest layer's input is one of a few embeddings: their product with the
        # kernel is a table.
        table = np.asarray(params["hybrid"]["embedding"], np.float64)
        table = table @ np.asarray(lstm["layer0_input_kernel"], np.float64)
        self.table = outer.constant(
            (table + _sum_bias(lstm, 0)).astype(np.float32), "token_gates"
        )
        mix = params["fusion"]["mix"]
        v = mix["kernel"].shape[0] // 2
        kernel = np.asarray(mix["kernel"])
        self.mix_hybrid = outer.constant(kernel[:v], "mix_hybrid")
        self.v = v
        # The text does not change the position glimpses, nor their part of the mix.
        bias = outer.constant(np.asarray(mix["bias"]), "mix_bias")
        if model.use_position:
            part = outer.add(
                "MatMul", encoded.position_glimpses, outer.constant(kernel[v:], "mix")
            )
            self.mix_position = outer.add("Add", part, bias)  # [b, t, 2v]
        else:
            shape = outer.constant(np.array([1, model.max_len, 1]))
            self.mix_position = outer.add("Expand", bias, shape)
        self.constants = {
            name: outer.constant(np.asarray(value), name)
            for name, value in {
                "classifier": params["classifier"]["kernel"],
                "classifier_bias": params["classifier"]["bias"],
                "recurrent0": lstm["layer0_recurrent_kernel"],
                "end": np.int64(model.end_id),
                "pad": np.int64(model.pad_id),
                "one": np.float32(1),
                "axis1": np.array([1]),
            }.items()
        }
        for layer in range(1, self.layers):
            both = [lstm[f"layer{layer}_{k}_kernel"] for k in ("input", "recurrent")]
            self.constants[f"kernel{layer}"] = outer.constant(
                np.concatenate([np.asarray(kernel) for kernel in both])
            )
            self.constants[f"bias{layer}"] = outer.constant(_sum_bias(lstm, layer))

    def _advance(
        self, graph: GraphBuilder, token: str, state: list[tuple[str, str]]
    ) -> list[tuple[str, str]]:
        """Adds one step of the stacked LSTM."""
        gates = graph.add("Gather", self.table, token, axis=0)
        recurrent = graph.add("MatMul", state[0][0], self.constants["recurrent0"])
        cells = [_cell(graph, graph.add("Add", gates, recurrent), state[0][1], self.d)]
        for layer in range(1, self.layers):
            both = graph.add("Concat", cells[-1][0], state[layer][0], axis=-1)
            gates = graph.add("MatMul", both, self.constants[f"kernel{layer}"])
            gates = graph.add("Add", gates, self.constants[f"bias{layer}"])
            cells.append(_cell(graph, gates, state[layer][1], self.d))
        return cells

    def _logits(self, graph: GraphBuilder, query: str, index: str) -> str:
        """Adds attention, fusion and classifier; returns `[b, k]`."""
        both = graph.add("Gather", self.mix_position, index, axis=1)  # [b, 2v]
        if self.model.use_hybrid:
            query = graph.add("Unsqueeze", query, self.constants["axis1"])
            e = self.encoded
            glimpse = graph.add(
                "MatMul", attend(graph, query, e.keys, e.valid), e.values
            )
            glimpse = graph.add("Squeeze", glimpse, self.constants["axis1"])
            both = graph.add("Add", graph.add("MatMul", glimpse, self.mix_hybrid), both)
        content, gate = graph.add(
            "Split", both, graph.constant(np.full(2, self.v)), outputs=2, axis=-1
        )
        fused = graph.add("Mul", content, graph.add("Sigmoid", gate))
        logits = graph.add("MatMul", fused, self.constants["classifier"])
        return graph.add("Add", logits, self.constants["classifier_bias"])

    def body(self) -> onnx.GraphProto:
        """Returns one decoding step as the body of a Loop.

        Carried: token, whether the row has ended, hidden and memory of each layer.
        Collected: token and probability.
        """
        graph = GraphBuilder(prefix="step/")
        state = [(f"hidden{n}", f"memory{n}") for n in range(self.layers)]
        state = [(f"step/{h}_in", f"step/{m}_in") for h, m in state]
        index, go_on, last, ended = (
            f"step/{name}_in" for name in ("index", "go_on", "token", "ended")
        )
        cells = self._advance(graph, last, state)
        logits = self._logits(graph, cells[-1][0], index)
        token = graph.add("ArgMax", logits, axis=-1, keepdims=0)
        probability = graph.add(
            "ReduceMax",
            graph.add("Softmax", logits, axis=-1),
            self.constants["axis1"],
            keepdims=0,
        )
        now = graph.add("Or", ended, graph.add("Equal", token, self.constants["end"]))
        token = graph.add("Where", ended, self.constants["pad"], token)
        probability = graph.add("Where", ended, self.constants["one"], probability)
        running = graph.cast(graph.add("Not", now), "int32")
        more = graph.cast(graph.add("ReduceMax", running, keepdims=0), "bool")

        carried: list[tuple[str, list[str | int], str, Any]] = [
            ("int64", ["b"], last, token),
            ("bool", ["b"], ended, now),
        ]
        for before, after in zip(state, cells, strict=True):
            for old, new in zip(before, after, strict=True):
                carried.append(("float32", ["b", self.d], old, new))
        return graph.graph(
            "step",
            [
                value_info(index, "int64", []),
                value_info(go_on, "bool", []),
                *(value_info(old, dtype, shape) for dtype, shape, old, _ in carried),
            ],
            [
                value_info(more, "bool", []),
                *(value_info(new, dtype, shape) for dtype, shape, _, new in carried),
                value_info(graph.add("Identity", token), "int64", ["b"]),
                value_info(probability, "float32", ["b"]),
            ],
        )


def _padded(
    outer: GraphBuilder, collected: str, steps: int, fill: str, output: str, dtype: str
) -> None:
    """Adds `[iterations, b]` to `[b, steps]`, filled up after an early end."""
    iterations = outer.add("Shape", collected, start=0, end=1)
    missing = outer.add("Sub", outer.constant(np.array([steps])), iterations)
    zero = outer.constant(np.array([0]))
    pads = outer.add("Concat", zero, zero, missing, zero, axis=0)
    whole = outer.add("Pad", collected, pads, fill, mode="constant")
    whole = outer.cast(outer.transpose(whole, 1, 0), dtype)
    outer.add("Identity", whole, outputs=[output])


def build(weights: Weights) -> onnx.ModelProto:
    """Returns the checked model: `image`, `width` -> `ids`, `probabilities`.

    Inputs are `[b, h, w, 3]` uint8 and `[b]` int32, outputs `[b, t]` int32 and float32.

    Args:
      weights: what to export; everything is computed in float32.
    """
    model, rule = weights.model, weights.preprocessing
    outer = GraphBuilder()
    encoded = encoder(
        outer,
        "image",
        "width",
        weights.variables,
        rule=rule,
        rounding=model.mask_rounding,
        steps=model.max_len,
    )
    decoder = _Decoder(outer, encoded, weights.variables["params"], model)
    batch = outer.add("Shape", "width")  # [1]
    state_shape = outer.add(
        "Concat", batch, outer.constant(np.array([decoder.d])), axis=0
    )

    def full(shape: str, value: Any) -> str:
        return outer.add(
            "ConstantOfShape",
            shape,
            value=onnx.numpy_helper.from_array(np.array([value])),
        )

    zeros = full(state_shape, np.float32(0))
    start = [full(batch, np.int64(model.start_id)), full(batch, np.bool_(False))]
    start += [zeros] * (2 * decoder.layers)
    *_, ids, probabilities = outer.add(
        "Loop",
        outer.constant(np.int64(model.max_len)),
        outer.constant(np.bool_(True)),
        *start,
        outputs=len(start) + 2,
        body=decoder.body(),
    )
    pad, one = decoder.constants["pad"], decoder.constants["one"]
    _padded(outer, ids, model.max_len, pad, "ids", "int32")
    _padded(outer, probabilities, model.max_len, one, "probabilities", "float32")
    graph = outer.graph(
        "robustscanner",
        [
            value_info("image", "uint8", ["b", rule.height, rule.max_width, 3]),
            value_info("width", "int32", ["b"]),
        ],
        [
            value_info("ids", "int32", ["b", model.max_len]),
            value_info("probabilities", "float32", ["b", model.max_len]),
        ],
    )
    proto = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="robustscanner_jax",
    )
    onnx.checker.check_model(proto, full_check=True)
    return proto
