"""Images per second of one core: the live network against its exports, on the CPU.

Run: taskset -c 0 python -m benchmarks.export --weights=FILE --source=PATH --batch=16

Exports the weights to a temporary folder, reads the same images with every backend that
is installed, and prints a table. `--source` is anything the program opens. `--int8`
adds the ONNX graph in 8-bit integers, for which words are rendered.

The readers take turns, and each turn is compared with the live network's in the same
round: other programs slow a round down, not one reader. CPU time of all threads counts.
"""

import argparse
import importlib.metadata
import statistics
import tempfile
import time
from pathlib import Path
from typing import cast

import jax
import numpy as np

from robustscanner_jax.artefact import GraphFormat
from robustscanner_jax.backends import is_installed
from robustscanner_jax.cores import allowed_cores
from robustscanner_jax.export.run import (
    CALIBRATION_SOURCE,
    COMPARISON_SOURCE,
    Rows,
    comparison_rows,
    export_artefact,
)
from robustscanner_jax.inference import load_artefact
from robustscanner_jax.open_weights import open_weights
from robustscanner_jax.reading import Reader, Reading
from robustscanner_jax.recognizer import Recognizer

# Each backend reads all images so often, in turns with the others.
ROUNDS = 5
# Enough for the share of equal texts, on which an export in 8-bit integers depends.
INT8_IMAGES = 256
READERS = (  # format, dtype of the graph, backend, precision
    ("stablehlo", "float32", "jax", "float32"),
    ("onnx", "float32", "onnxruntime", "float32"),
    ("onnx", "float32", "openvino", "float32"),
    ("onnx", "float32", "openvino", "bfloat16"),
    ("onnx", "int8", "onnxruntime", "float32"),
    ("onnx", "int8", "openvino", "float32"),
    ("onnx", "int8", "openvino", "bfloat16"),
)


def make_readers(
    weights_file: str, rows: Rows, batch: int, *, int8: bool
) -> dict[str, Reader]:
    """Returns what can read: the live network and every installed backend."""
    weights = open_weights(weights_file)
    readers: dict[str, Reader] = {
        f"live JAX {jax.__version__}": Recognizer(
            weights, batch_size=batch, dtype="float32"
        )
    }
    with tempfile.TemporaryDirectory() as folder:
        for graph_format, dtype, backend, precision in READERS:
            if not is_installed(backend) or (dtype == "int8" and not int8):
                continue
            path = Path(folder, f"{graph_format}-{dtype}")
            if not path.exists():
                compared, calibration = (rows[0][:64], rows[1][:64]), None
                if dtype == "int8":
                    rule = weights.preprocessing
                    compared = comparison_rows(rule, count=INT8_IMAGES)
                    calibration = comparison_rows(rule, CALIBRATION_SOURCE)
                export_artefact(
                    weights,
                    path,
                    graph_format=cast(GraphFormat, graph_format),
                    rows=compared,
                    calibration=calibration,
                )
            version = importlib.metadata.version(backend)
            graph = graph_format + (" int8" if dtype == "int8" else "")
            name = f"{graph}, {backend} {version}, {precision}"
            readers[name] = load_artefact(
                path, backend, batch_size=batch, precision=precision
            )
    return readers


def measure(
    readers: dict[str, Reader], rows: list[tuple[np.ndarray, int]], batch: int
) -> tuple[dict[str, list[float]], dict[str, list[Reading]]]:
    """Returns the CPU seconds of each reader's turns, and what it read."""

    def read_all(reader: Reader) -> list[Reading]:
        found: list[Reading] = []
        for start in range(0, len(rows), batch):
            found += reader.read_rows(rows[start : start + batch])
        return found

    read = {name: read_all(reader) for name, reader in readers.items()}  # warm-up
    turns: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(ROUNDS):
        for name, reader in readers.items():
            start = time.process_time()
            read_all(reader)
            turns[name].append(time.process_time() - start)
    return turns, read


def print_table(
    turns: dict[str, list[float]], read: dict[str, list[Reading]], count: int
) -> None:
    """Prints a row for each reader; the first is the live network."""
    live, *_ = turns
    print(f"{ROUNDS} rounds on {allowed_cores()} core(s)")
    print("| backend | images/s | times live | other texts | largest difference |")
    print("|---|---:|---:|---:|---:|")
    for name, seconds in turns.items():
        ratios = [a / b for a, b in zip(turns[live], seconds, strict=True)]
        times = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        pairs = list(zip(read[name], read[live], strict=True))
        wrong = sum(ours.text != theirs.text for ours, theirs in pairs)
        difference = max(abs(a.confidence - b.confidence) for a, b in pairs)
        print(
            f"| {name} | {count / statistics.median(seconds):.1f} | {times} "
            f"| {wrong} of {count} | {difference:.1g} |"
        )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="small", help="file, run folder or name")
    parser.add_argument("--source", default=COMPARISON_SOURCE)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--int8", action="store_true", help="8-bit integers as well")
    arguments = parser.parse_args()
    rule = open_weights(arguments.weights).preprocessing
    pixels, widths = comparison_rows(rule, arguments.source, count=arguments.count)
    readers = make_readers(
        arguments.weights, (pixels, widths), arguments.batch, int8=arguments.int8
    )
    rows = list(zip(pixels, widths.tolist(), strict=True))
    turns, read = measure(readers, rows, arguments.batch)
    print_table(turns, read, len(rows))


if __name__ == "__main__":
    main()
