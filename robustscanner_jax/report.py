"""Pictures that a person would rather look at than numbers.

Run: python -m robustscanner_jax.report RUN, for the curves of a training run
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from robustscanner_jax.reading import Reading

RIGHT, WRONG = "#1a7f37", "#cf222e"
_ROW_INCHES = 0.95  # of an attention map, its margin included


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image and how it was read.

    Attributes:
      image: RGB.
      label: the true text.
      text: what was read.
      confidence: in [0, 1].
      right: whether the protocol of the evaluation counts it.
    """

    image: UInt8[np.ndarray, "h w 3"]
    label: str
    text: str
    confidence: float
    right: bool


def draw_samples(samples: Sequence[Sample], path: Path, *, columns: int = 5) -> None:
    """Writes a PNG of the images with what was read: green right, red wrong.

    A wrong one shows its label as well.
    """
    rows = max(1, -(-len(samples) // columns))
    figure = Figure(figsize=(2.3 * columns, 1.05 * rows + 0.2), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, sample in zip(axes.flat, samples, strict=False):
        axis.imshow(sample.image, interpolation="bilinear")
        title = f"{sample.text} ({sample.confidence:.0%})"
        if not sample.right:
            title += f"\nis {sample.label}"
        axis.set_title(
            _plain(title),
            color=RIGHT if sample.right else WRONG,
            fontsize=8,
            pad=2,
        )
    figure.tight_layout(pad=0.6)
    figure.savefig(path)


def draw_attention(
    image: UInt8[np.ndarray, "h w 3"],
    width: int,
    reading: Reading,
    hybrid_attention: Float[np.ndarray, "t h2 w2"],
    position_attention: Float[np.ndarray, "t h2 w2"],
    position_share: Float[np.ndarray, "t"],
    path: Path,
    *,
    note: str = "",
) -> None:
    """Writes a PNG of where both branches looked for each character.

    The text and its confidence stand above. The padding is not shown.

    Args:
      image: the RGB row that the network saw, padding included.
      width: of the content, pixels.
      reading: a step for each of its characters; there may be one more for the end.
      hybrid_attention, position_attention: weights over the cells of the map.
      position_share: of the fused features, in [0, 1]; the rest is context.
      path: of the picture.
      note: stands behind the confidence.
    """
    steps = len(position_share)
    height, row_width = image.shape[:2]
    cells = hybrid_attention.shape[2]
    shown = -(-width * cells // row_width)  # columns of cells; the last may be cut
    column = max(_ROW_INCHES * width / height, 2.0)  # inches; below, heads overlap
    inches = _ROW_INCHES * steps + 0.8
    figure = Figure(figsize=(2 * column + 1.6, inches), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.subplots(steps, 2, squeeze=False)
    characters = reading.characters
    for step, (left, right) in enumerate(axes):
        for axis, weights in ((left, hybrid_attention), (right, position_attention)):
            axis.imshow(image, extent=(0, row_width, height, 0))
            heat = weights[step, :, :shown]
            heat = heat / max(heat.max(), 1e-9)
            axis.imshow(
                heat,
                cmap="inferno",
                alpha=0.25 + 0.6 * heat,
                extent=(0, shown * row_width / cells, height, 0),
                interpolation="bilinear",
            )
            axis.set(xticks=[], yticks=[], xlim=(0, width))
        character = characters[step] if step < len(characters) else "end"
        left.set_ylabel(
            _plain(character), rotation=0, fontsize=13, labelpad=16, va="center"
        )
        right.yaxis.set_label_position("right")
        right.set_ylabel(
            f"{position_share[step]:.0%}", rotation=0, labelpad=18, va="center"
        )
    axes[0, 0].set_title("context branch", fontsize=9)
    axes[0, 1].set_title("position branch, and its share", fontsize=9)
    sure = ", ".join(filter(None, [f"{reading.confidence:.0%}", note]))
    title = f"{reading.text or 'nothing read'} ({sure})"
    figure.suptitle(_plain(title), fontsize=13, y=1 - 0.08 / inches, va="top")
    figure.tight_layout(pad=0.5)
    figure.savefig(path)


def read_metrics(workdir: Path) -> list[dict[str, Any]]:
    """Returns the values that a run logged, a dictionary a step, in order.

    A step that was trained again counts as it was the last time. A line that a killed
    process left unfinished is skipped.

    Raises:
      ValueError: the folder has no metrics.jsonl, or no line in it.
    """
    path = workdir / "metrics.jsonl"
    if not path.is_file():
        raise ValueError(f"{workdir}: expected a run folder, it has no {path.name}")
    steps: dict[int, dict[str, Any]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        steps.setdefault(values["step"], {}).update(values)
    if not steps:
        raise ValueError(f"{path}: expected lines, nothing is logged yet")
    return [steps[step] for step in sorted(steps)]


def draw_curves(metrics: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes a PNG of loss and accuracies by update.

    Args:
      metrics: as `read_metrics` returns them.
      path: of the picture.
    """
    figure = Figure(figsize=(7.5, 3.2), dpi=110)
    FigureCanvasAgg(figure)
    loss, accuracy = figure.subplots(1, 2)
    logged = [line for line in metrics if line.get("loss") is not None]
    steps = [line["step"] for line in logged]
    losses = [line["loss"] for line in logged]
    _draw_noisy(loss, steps, losses)
    loss.set(xlabel="update", ylabel="loss, nats a token")
    if losses and max(losses) > 5 * min(losses) > 0:
        loss.set_yscale("log")
        loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        loss.yaxis.set_major_formatter("{x:g}")
        loss.yaxis.set_minor_formatter(NullFormatter())
    tokens = [100 * line["token_accuracy"] for line in logged]
    _draw_noisy(accuracy, steps, tokens, label="tokens in training")
    names = dict.fromkeys(k for line in metrics for k in line if "accuracy/" in k)
    for name in names:
        points = [(line["step"], 100 * line[name]) for line in metrics if name in line]
        accuracy.plot(
            *zip(*points, strict=True), "o-", ms=3, label=name.split("/", 1)[1]
        )
    lowest = min(accuracy.dataLim.y0, 99)  # infinite where nothing is drawn
    accuracy.set(xlabel="update", ylabel="right, %", ylim=(lowest // 10 * 10, 100))
    accuracy.legend(fontsize=7, loc="lower right")
    for axis in (loss, accuracy):
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path)


def _draw_noisy(
    axis: Axes, steps: Sequence[int], values: Sequence[float], label: str = ""
) -> None:
    """Draws values faintly, and their mean over a twentieth of them."""
    window = 1 + len(values) // 20
    means = np.convolve(values, np.ones(window) / window, "valid") if values else []
    middles = steps[window // 2 :][: len(means)]
    (line,) = axis.plot(middles, means, lw=1.4, label=label)
    axis.plot(steps, values, lw=0.8, alpha=0.3, color=line.get_color())


def _plain(text: str) -> str:
    """Returns the text for matplotlib, to which a dollar sign starts a formula."""
    return text.replace("$", r"\$")


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes RUN/curves.png; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m robustscanner_jax.report",
        description="Draws loss and accuracies of a training run into RUN/curves.png.",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="the run folder")
    workdir = parser.parse_args(arguments).run
    try:
        draw_curves(read_metrics(workdir), workdir / "curves.png")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(workdir / "curves.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
