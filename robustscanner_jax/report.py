"""Pictures that a person would rather look at than numbers."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

RIGHT, WRONG = "#1a7f37", "#cf222e"


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image and how it was read; the image is RGB."""

    image: UInt8[np.ndarray, "h w 3"]
    label: str
    text: str
    confidence: float


def draw_samples(samples: Sequence[Sample], path: Path, *, columns: int = 5) -> None:
    """Writes a PNG of the images with what was read: green right, red wrong.

    A wrong one shows its label as well; letter case counts.
    """
    rows = max(1, -(-len(samples) // columns))
    figure = Figure(figsize=(2.3 * columns, 1.0 * rows), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, sample in zip(axes.flat, samples, strict=False):
        axis.imshow(sample.image, interpolation="bilinear")
        right = sample.text == sample.label
        title = f"{sample.text} ({sample.confidence:.0%})"
        if not right:
            title += f"\nis {sample.label}"
        # Dollar signs would start a formula.
        axis.set_title(
            title.replace("$", r"\$"),
            color=RIGHT if right else WRONG,
            fontsize=8,
            pad=2,
        )
    figure.tight_layout(pad=0.4)
    figure.savefig(path)
    plt.close("all")
