"""Compares rendered words with real crops: a table and a plot.

Run: python -m data_prep.synthetic.statistics --real=train.tsv --output=statistics.png

The list of real crops has `path TAB label` lines, paths relative to the list.
"""

import argparse
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import matplotlib
import numpy as np

from data_prep.synthetic import presets, words
from data_prep.synthetic.render import WordRenderer

_PERCENTILES = (5, 50, 95)
_LOG_MEASURES = ("height", "aspect", "sharpness")
_MODEL_HEIGHT = 48  # pixels: sharpness is measured as the network sees it, too


def measure_image(image: np.ndarray) -> dict[str, float]:
    """Returns what a picture [h, w, 3] uint8 looks like, in numbers.

    `height` in pixels; `aspect` is width / height; `contrast` is the 98th minus the
    2nd percentile of the luminance, of 255; `sharpness` is the standard deviation of
    the Laplacian of the luminance; `sharpness_48` the same at 48 pixels of height.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    height, width = grey.shape
    low, high = np.percentile(grey, (2, 98))
    scaled_width = max(1, round(width * _MODEL_HEIGHT / height))
    scaled = cv2.resize(grey, (scaled_width, _MODEL_HEIGHT))
    return {
        "height": float(height),
        "aspect": width / height,
        "contrast": float(high - low),
        "sharpness": float(cv2.Laplacian(grey, cv2.CV_32F).std()),
        "sharpness_48": float(cv2.Laplacian(scaled, cv2.CV_32F).std()),
    }


def case_of(text: str) -> str:
    """Returns upper, title, lower, mixed, or digits, none by the letters of a label."""
    letters = [c for c in text if c.isalpha()]
    if not letters:
        return "digits" if text.isdigit() else "none"
    if all(c.isupper() for c in letters):
        return "upper"
    if all(c.islower() for c in letters):
        return "lower"
    if letters[0].isupper() and all(c.islower() for c in letters[1:]):
        return "title"
    return "mixed"


def measure_labels(texts: Sequence[str]) -> dict[str, float]:
    """Returns shares of all labels: each case, digits only, and with punctuation."""
    cases = [case_of(text) for text in texts]
    shares = {
        case: cases.count(case) / len(texts)
        for case in ("upper", "title", "lower", "mixed", "digits")
    }
    marked = sum(any(c in words.PUNCTUATION for c in text) for text in texts)
    shares["punctuation"] = marked / len(texts)
    return shares


def measure_all(
    pairs: Iterable[tuple[np.ndarray, str]],
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Returns the measures of many pictures [n], and the shares of their labels.

    Raises:
      ValueError: there is no picture.
    """
    rows, texts = [], []
    for image, text in pairs:
        rows.append({**measure_image(image), "length": float(len(text))})
        texts.append(text)
    if not rows:
        raise ValueError("statistics: no picture to measure")
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return columns, measure_labels(texts)


def read_real(path: Path, count: int) -> Iterable[tuple[np.ndarray, str]]:
    """Yields up to `count` pictures and labels of a list, drawn evenly from it.

    Raises:
      ValueError: a line has no tab, or a picture cannot be read.
    """
    lines = [line for line in path.read_text().splitlines() if line]
    if len(lines) > count:
        lines = random.Random(0).sample(lines, count)
    for line in lines:
        name, tab, text = line.partition("\t")
        if not tab:
            raise ValueError(f"{path}: expected `path TAB label`, got {line!r}")
        image = cv2.imread(str(path.parent / name), cv2.IMREAD_COLOR)
        if image is None:
            raise ValueError(f"{path}: cannot read the picture {name}")
        yield image, text


def format_table(
    measured: dict[str, tuple[dict[str, np.ndarray], dict[str, float]]],
) -> str:
    """Returns the 5th, 50th and 95th percentiles and the shares as a text table."""
    lines = [f"{'':14}" + "".join(f"{name:>22}" for name in measured)]
    first_columns, first_shares = next(iter(measured.values()))
    for name in first_columns:
        cells = []
        for columns, _ in measured.values():
            values = np.percentile(columns[name], _PERCENTILES)
            cells.append(" / ".join(f"{value:.3g}" for value in values))
        lines.append(f"{name:14}" + "".join(f"{cell:>22}" for cell in cells))
    for name in first_shares:
        cells = [f"{100 * shares[name]:.1f} %" for _, shares in measured.values()]
        lines.append(f"{name:14}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines)


def plot(
    measured: dict[str, tuple[dict[str, np.ndarray], dict[str, float]]], path: Path
) -> None:
    """Writes a PNG with a histogram of each measure and a bar for each share."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [*next(iter(measured.values()))[0]]
    figure, axes = plt.subplots(1, len(names) + 1, figsize=(3.2 * (len(names) + 1), 3))
    for axis, name in zip(axes, names, strict=False):
        values = np.concatenate([columns[name] for columns, _ in measured.values()])
        low, high = np.percentile(values, (0.5, 99.5))
        if name in _LOG_MEASURES or name == "sharpness_48":
            low = max(low, 0.1)
            bins = np.geomspace(low, max(high, 1.1 * low), 30)
            axis.set_xscale("log")
        else:
            bins = np.linspace(low, max(high, low + 1), 30)
        for label, (columns, _) in measured.items():
            axis.hist(columns[name], bins, density=True, histtype="step", label=label)
        axis.set_title(name)
        axis.set_yticks([])
    axes[0].legend(fontsize="small")
    width, shares = 0.8 / len(measured), {}
    for number, (_, shares) in enumerate(measured.values()):
        places = np.arange(len(shares)) + number * width
        axes[-1].bar(places, [100 * share for share in shares.values()], width)
    axes[-1].set_xticks(
        np.arange(len(shares)) + width / 2, list(shares), rotation=60, fontsize="small"
    )
    axes[-1].set_title("labels, %")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures both, prints the table and writes the plot."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.synthetic.statistics",
        description="Compares rendered words with real crops.",
    )
    parser.add_argument("--real", required=True, help="list of real crops")
    parser.add_argument("--output", default="statistics.png", help="plot to write")
    parser.add_argument("--count", type=int, default=2000, help="pictures of each")
    parser.add_argument("--preset", default="full", choices=presets.PRESETS)
    parser.add_argument("--seed", type=int, default=0, help="of the generator")
    flags = parser.parse_args(arguments)
    renderer = WordRenderer(
        presets.get_settings(flags.preset), seed=flags.seed, split="any"
    )
    rendered = (renderer.render(index) for index in range(flags.count))
    measured = {
        "rendered": measure_all((one.image, one.text) for one in rendered),
        "real": measure_all(read_real(Path(flags.real), flags.count)),
    }
    print(format_table(measured))
    plot(measured, Path(flags.output))


if __name__ == "__main__":
    main()
