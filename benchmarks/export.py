"""Images per second of one core: the live network against its exports, on the CPU.

Run: taskset -c 0 python -m benchmarks.export --weights=FILE --source=PATH --batch=16

Exports the weights to a temporary folder, reads the same images with every backend that
is installed, and prints a table. `--source` is anything the program opens.
"""

import argparse
import importlib.metadata
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import jax
import numpy as np

from robustscanner_jax.artefact import GraphFormat
from robustscanner_jax.backends import is_installed
from robustscanner_jax.export.run import (
    COMPARISON_SOURCE,
    Rows,
    comparison_rows,
    export_artefact,
)
from robustscanner_jax.inference import load_artefact
from robustscanner_jax.reading import Reader, Reading
from robustscanner_jax.recognizer import Recognizer
from robustscanner_jax.weights import load_weights

# Each backend reads all images so often, in turns with the others; the fastest counts.
ROUNDS = 3


def make_readers(weights_file: str, rows: Rows, batch: int) -> dict[str, Reader]:
    """Returns what can read: the live network and every installed backend."""
    weights = load_weights(weights_file)
    readers: dict[str, Reader] = {
        f"live JAX {jax.__version__}": Recognizer(weights, batch_size=batch)
    }
    with tempfile.TemporaryDirectory() as folder:
        for graph_format, backend, precision in (
            ("stablehlo", "jax", "float32"),
            ("onnx", "onnxruntime", "float32"),
            ("onnx", "openvino", "float32"),
            ("onnx", "openvino", "bfloat16"),
        ):
            if not is_installed(backend):
                continue
            path = Path(folder, graph_format)
            if not path.exists():
                few = (rows[0][:64], rows[1][:64])
                export_artefact(
                    weights,
                    path,
                    graph_format=cast(GraphFormat, graph_format),
                    rows=few,
                )
            version = importlib.metadata.version(backend)
            name = f"{graph_format}, {backend} {version}, {precision}"
            readers[name] = load_artefact(
                path, backend, batch_size=batch, precision=precision
            )
    return readers


def measure(
    readers: dict[str, Reader], rows: list[tuple[np.ndarray, int]], batch: int
) -> tuple[dict[str, float], dict[str, list[Reading]]]:
    """Returns the CPU seconds that each reader needs for all rows, and what it read."""

    def read_all(reader: Reader) -> list[Reading]:
        found: list[Reading] = []
        for start in range(0, len(rows), batch):
            found += reader.read_rows(rows[start : start + batch])
        return found

    def seconds(call: Callable[[], object]) -> float:
        # Of the processor, all threads: other programs on the machine do not count.
        start = time.process_time()
        call()
        return time.process_time() - start

    read = {name: read_all(reader) for name, reader in readers.items()}  # warm-up
    best = dict.fromkeys(readers, float("inf"))
    for _ in range(ROUNDS):
        for name, reader in readers.items():
            best[name] = min(best[name], seconds(lambda r=reader: read_all(r)))
    return best, read


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--source", default=COMPARISON_SOURCE)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    rule = load_weights(arguments.weights).preprocessing
    pixels, widths = comparison_rows(rule, arguments.source, count=arguments.count)
    readers = make_readers(arguments.weights, (pixels, widths), arguments.batch)
    rows = list(zip(pixels, widths.tolist(), strict=True))
    best, read = measure(readers, rows, arguments.batch)
    live, *_ = best
    print("| backend | images/s | times live | other texts | largest difference |")
    print("|---|---:|---:|---:|---:|")
    for name, seconds in best.items():
        pairs = list(zip(read[name], read[live], strict=True))
        wrong = sum(ours.text != theirs.text for ours, theirs in pairs)
        difference = max(abs(a.confidence - b.confidence) for a, b in pairs)
        print(
            f"| {name} | {len(rows) / seconds:.1f} | {best[live] / seconds:.2f} "
            f"| {wrong} of {len(rows)} | {difference:.1g} |"
        )


if __name__ == "__main__":
    main()
