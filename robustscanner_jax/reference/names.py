"""Which of our variables is which tensor of a published checkpoint.

`MODULES` is the one table; a `Dialect` says how an implementation spells and lays out
the tensors of a module. Import and export both follow `entries`.
"""

import dataclasses
import functools
from typing import Literal

import numpy as np

Layout = Literal["same", "transposed", "conv"]
Kind = Literal["conv", "conv_bias", "norm", "linear", "lstm", "embedding"]

# Axes that turn a published tensor into ours, and back. Ours: convolution HWIO, dense
# and LSTM kernels [in, out]. Published: convolution OIHW, LSTM [out, in].
TO_OURS: dict[Layout, tuple[int, ...]] = {"transposed": (1, 0), "conv": (2, 3, 1, 0)}
TO_PUBLISHED: dict[Layout, tuple[int, ...]] = {
    "transposed": (1, 0),
    "conv": (3, 2, 0, 1),
}
LSTM_LAYERS = (0, 1)
LSTM_TENSORS: tuple[tuple[str, str, Layout], ...] = (
    ("input_kernel", "weight_ih", "transposed"),
    ("recurrent_kernel", "weight_hh", "transposed"),
    ("input_bias", "bias_ih", "same"),
    ("recurrent_bias", "bias_hh", "same"),
)


def _backbone() -> list[tuple[str, str, Kind]]:
    rows: list[tuple[str, str, Kind]] = []
    for number in (1, 2):
        ours = f"backbone/stem{number}"
        rows.append((f"{ours}/conv", f"backbone.conv1_{number}", "conv_bias"))
        rows.append((f"{ours}/norm", f"backbone.bn1_{number}", "norm"))
    for stage, blocks in ((2, 1), (3, 2), (4, 5), (5, 3)):
        for block in range(blocks):
            ours = f"backbone/stage{stage}_block{block}"
            theirs = f"backbone.block{stage}.{block}"
            for conv in (1, 2):
                rows.append((f"{ours}/conv{conv}/conv", f"{theirs}.conv{conv}", "conv"))
                rows.append((f"{ours}/conv{conv}/norm", f"{theirs}.bn{conv}", "norm"))
            if block == 0 and stage in (2, 4):  # where the channels change
                short = f"{ours}/shortcut"
                rows.append((f"{short}/conv", f"{theirs}.downsample.0", "conv"))
                rows.append((f"{short}/norm", f"{theirs}.downsample.1", "norm"))
        ours = f"backbone/stage{stage}_conv"
        rows.append((f"{ours}/conv", f"backbone.conv{stage}", "conv_bias"))
        rows.append((f"{ours}/norm", f"backbone.bn{stage}", "norm"))
    return rows


# (our module, published module, kind). {head} and {fusion} depend on the dialect.
MODULES: tuple[tuple[str, str, Kind], ...] = (
    *_backbone(),
    ("reduction", "{head}encoder.layer", "conv_bias"),
    ("hybrid/embedding", "{head}decoder.hybrid_decoder.embedding", "embedding"),
    ("hybrid/lstm", "{head}decoder.hybrid_decoder.sequence_layer", "lstm"),
    ("position/embedding", "{head}decoder.position_decoder.embedding", "embedding"),
    (
        "position/position_aware/lstm",
        "{head}decoder.position_decoder.position_aware_module.rnn",
        "lstm",
    ),
    (
        "position/position_aware/mix1",
        "{head}decoder.position_decoder.position_aware_module.mixer.0",
        "conv_bias",
    ),
    (
        "position/position_aware/mix2",
        "{head}decoder.position_decoder.position_aware_module.mixer.2",
        "conv_bias",
    ),
    ("fusion/mix", "{head}decoder.{fusion}", "linear"),
    ("classifier", "{head}decoder.prediction", "linear"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dialect:
    """How an implementation names and lays out its tensors.

    Attributes:
      head: prefix of everything behind the backbone.
      fusion: name of the fusion layer within the decoder.
      mean, variance: of a batch norm's running statistics.
      linear: layout of a linear layer's weight.
      counters: each batch norm has a `num_batches_tracked`, which nothing uses.
      aliases: each LSTM tensor is listed under a second name too.
    """

    head: str = ""
    fusion: str
    mean: str
    variance: str
    linear: Layout
    counters: bool = False
    aliases: bool = False


@dataclasses.dataclass(frozen=True)
class Entry:
    """One variable: its path in our tree and its published name and layout."""

    path: str
    name: str
    layout: Layout = "same"
    alias: str | None = None  # the second name of the same tensor

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        """Returns the published array in our layout."""
        return array.transpose(TO_OURS.get(self.layout, range(array.ndim)))

    def to_published(self, array: np.ndarray) -> np.ndarray:
        """Returns our array in the published layout; the inverse of `to_ours`."""
        return array.transpose(TO_PUBLISHED.get(self.layout, range(array.ndim)))

    def published_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the published shape of a variable of ours."""
        axes = TO_PUBLISHED.get(self.layout, range(len(shape)))
        return tuple(shape[axis] for axis in axes)


def _module_entries(
    ours: str, theirs: str, kind: Kind, dialect: Dialect
) -> list[Entry]:
    params = f"params/{ours}"
    if kind == "embedding":
        return [Entry(params, f"{theirs}.weight")]
    if kind == "lstm":
        return [
            Entry(
                f"{params}/layer{layer}_{field}",
                f"{theirs}.{tensor}_l{layer}",
                layout,
                f"{theirs}.{layer}.cell.{tensor}" if dialect.aliases else None,
            )
            for layer in LSTM_LAYERS
            for field, tensor, layout in LSTM_TENSORS
        ]
    if kind == "norm":
        statistics = f"batch_stats/{ours}"
        return [
            Entry(f"{params}/scale", f"{theirs}.weight"),
            Entry(f"{params}/bias", f"{theirs}.bias"),
            Entry(f"{statistics}/mean", f"{theirs}.{dialect.mean}"),
            Entry(f"{statistics}/var", f"{theirs}.{dialect.variance}"),
        ]
    layout = dialect.linear if kind == "linear" else "conv"
    rows = [Entry(f"{params}/kernel", f"{theirs}.weight", layout)]
    if kind != "conv":
        rows.append(Entry(f"{params}/bias", f"{theirs}.bias"))
    return rows


@functools.cache
def entries(dialect: Dialect) -> tuple[Entry, ...]:
    """Returns the mapping of every variable, in the order of the network."""
    rows = []
    for ours, theirs, kind in MODULES:
        theirs = theirs.format(head=dialect.head, fusion=dialect.fusion)
        rows += _module_entries(ours, theirs, kind, dialect)
    return tuple(rows)


@functools.cache
def counters(dialect: Dialect) -> tuple[str, ...]:
    """Returns the names of the batch norms' counters, if the dialect has them."""
    if not dialect.counters:
        return ()
    norms = (theirs for _, theirs, kind in MODULES if kind == "norm")
    return tuple(f"{norm}.num_batches_tracked" for norm in norms)
