"""Exports weights: the graph is compared with the live network before it is written."""

import importlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

import robustscanner_jax
from robustscanner_jax import artefact, backends
from robustscanner_jax.artefact import GRAPH_FILES, WEIGHTS_FILE, Manifest, SelfTest
from robustscanner_jax.data.rendered import open_named
from robustscanner_jax.data.transforms import pixels_of
from robustscanner_jax.packages import optional
from robustscanner_jax.preprocessing import Preprocessing, resize_and_pad
from robustscanner_jax.reading import DecodedRows
from robustscanner_jax.recognizer import Recognizer
from robustscanner_jax.staging import staged
from robustscanner_jax.weights import Weights, save_weights

# Sizes in which the exported graph reads the images, in turn: one, odd, a full batch.
BATCH_SIZES = (1, 7, 64)
SELF_TEST_IMAGES = 8
# Texts must be equal; probabilities may differ by this much.
LARGEST_DIFFERENCE = 1e-4
# Words that the training never saw, drawn on the fly.
COMPARISON_SOURCE = "rendered:full?seed=77&count=1000&split=heldout"

Rows = tuple[np.ndarray, np.ndarray]  # pixels [n, h, w, 3] uint8, widths [n] int32


def comparison_rows(
    rule: Preprocessing, source: str = COMPARISON_SOURCE, *, count: int = 1000
) -> Rows:
    """Returns the images that an export is compared on.

    Args:
      rule: of the weights.
      source: anything `data.rendered.open_named` opens.
      count: at most so many are taken.

    Raises:
      ValueError: the source holds no image.
    """
    records = open_named(source)
    rows = [
        resize_and_pad(pixels_of(records[number]), rule)
        for number in range(min(count, len(records)))
    ]
    if not rows:
        raise ValueError(f"{source}: no images to compare the export on")
    pixels, widths = zip(*rows, strict=True)
    return np.stack(pixels), np.array(widths, np.int32)


def _chunks(count: int, sizes: Sequence[int]) -> Iterator[slice]:
    start = 0
    for size in itertools.cycle(sizes):
        if start >= count:
            return
        yield slice(start, start + size)
        start += size


def _decode_all(
    decode: backends.Decode, rows: Rows, sizes: Sequence[int], label: str
) -> DecodedRows:
    found = []
    with tqdm(total=len(rows[1]), desc=label, unit="image", disable=None) as bar:
        for chunk in _chunks(len(rows[1]), sizes):
            found.append(decode(rows[0][chunk], rows[1][chunk]))
            bar.update(len(rows[1][chunk]))
    return DecodedRows(*map(np.concatenate, zip(*found, strict=True)))


def live_rows(weights: Weights, rows: Rows) -> DecodedRows:
    """Returns what the live network reads in the rows, in float32."""
    recognizer = Recognizer(weights, batch_size=64, dtype="float32")

    def decode(image: np.ndarray, width: np.ndarray) -> DecodedRows:
        count = len(width)
        # One shape, so one compilation: the last batch is filled up.
        pick = np.arange(recognizer.batch_size) % count
        found = recognizer.decode(image[pick], width[pick])
        return DecodedRows(*(np.asarray(array)[:count] for array in found))

    with jax.default_matmul_precision("highest"):
        return _decode_all(decode, rows, (recognizer.batch_size,), "live network")


def compare(
    live: DecodedRows, exported: DecodedRows, weights: Weights
) -> dict[str, int | float]:
    """Returns the comparison for the manifest.

    Raises:
      ValueError: a text or a probability differs; the message says where and how.
    """
    to_text = weights.charset.to_text
    pairs = zip(live.ids.tolist(), exported.ids.tolist(), strict=True)
    texts = [(to_text(ours), to_text(theirs)) for ours, theirs in pairs]
    wrong = [i for i, (ours, theirs) in enumerate(texts) if ours != theirs]
    if wrong:
        ours, theirs = texts[wrong[0]]
        raise ValueError(
            f"the exported graph reads {len(wrong)} of {len(texts)} images "
            f"differently: image {wrong[0]} is {ours!r} live, {theirs!r} exported"
        )
    difference = float(np.abs(live.probabilities - exported.probabilities).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"the exported graph's probabilities differ by {difference:.2g}, "
            f"expected at most {LARGEST_DIFFERENCE:g}"
        )
    return {
        "images": len(texts),
        "distinct_texts": len({ours for ours, _ in texts}),
        "equal_texts": len(texts),
        "largest_probability_difference": difference,
    }


def choose_self_test(rows: Rows, live: DecodedRows, weights: Weights) -> SelfTest:
    """Returns the images read most surely, each with another text.

    Surely, because another processor rounds differently, and that must not decide.
    """
    texts = [weights.charset.to_text(row) for row in live.ids.tolist()]
    order = np.argsort(-live.probabilities.min(axis=1), kind="stable").tolist()
    surest: dict[str, int] = {}
    for i in order:
        surest.setdefault(texts[i], i)
    kept = list(surest.values())[:SELF_TEST_IMAGES]
    return SelfTest(
        *(array[kept] for array in (*rows, *live)), texts=[texts[i] for i in kept]
    )


def _write_graph(
    folder: Path,
    weights: Weights,
    graph_format: artefact.GraphFormat,
    opset: int | None,
) -> None:
    if graph_format == "stablehlo":
        from robustscanner_jax.export import stablehlo

        graph = stablehlo.build(weights)
        save_weights(folder / WEIGHTS_FILE, weights, dtype="float32")
    else:
        from robustscanner_jax.export import onnx_builder, onnx_graph

        proto = onnx_graph.build(weights, opset=opset or onnx_builder.OPSET)
        graph = proto.SerializeToString()
    (folder / GRAPH_FILES[graph_format]).write_bytes(graph)


def _versions(names: Iterable[str]) -> dict[str, str]:
    # Of the imported package: onnxruntime-gpu is installed under another name.
    found = {name: importlib.import_module(name).__version__ for name in names}
    return {"robustscanner_jax": robustscanner_jax.__version__} | found


def export_artefact(
    weights: Weights,
    output: str | Path,
    *,
    graph_format: artefact.GraphFormat,
    rows: Rows,
    opset: int | None = None,
) -> Manifest:
    """Writes the folder of an exported network, or nothing.

    Args:
      weights: what to export.
      output: the folder; an older export in it is replaced.
      graph_format: "stablehlo" or "onnx".
      rows: images to compare on, as `comparison_rows` returns them.
      opset: version of ONNX's operators; None is the newest that is tested.

    Raises:
      ValueError: a package is missing, something else is in `output`, or the exported
        graph does not read as the live network does.
    """
    if graph_format not in GRAPH_FILES:
        raise ValueError(
            f"format must be one of {', '.join(GRAPH_FILES)}, got {graph_format!r}"
        )
    if graph_format == "onnx":
        for package in ("onnx", "onnxruntime"):
            optional(package, "--format=onnx")
    with staged(Path(output), replaceable=artefact.is_artefact) as folder:
        _write_graph(folder, weights, graph_format, opset)
        backend = "jax" if graph_format == "stablehlo" else "onnxruntime"
        decode = backends.open_graph(folder, backend)
        exported = _decode_all(decode, rows, BATCH_SIZES, "exported graph")
        live = live_rows(weights, rows)
        packages = ("jax",) if backend == "jax" else ("jax", "onnx", "onnxruntime")
        manifest = Manifest(
            graph_format=graph_format,
            charset=weights.charset,
            preprocessing=weights.preprocessing,
            max_len=weights.model.max_len,
            card=weights.card,
            comparison=compare(live, exported, weights),
            versions=_versions(packages),
        )
        artefact.write(folder, manifest, choose_self_test(rows, live, weights))
    return manifest
