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
# In 8-bit integers so large a share of the texts must be equal: of the comparison's
# words `small` keeps 0.98, and `tiny`, which is unsure more often, 0.93.
SMALLEST_SHARE = 0.9
# Words that the training never saw, drawn on the fly.
COMPARISON_SOURCE = "rendered:full?seed=77&count=1000&split=heldout"
# Words that give the ranges of 8-bit integers: of the other split, so that none of them
# is compared.
CALIBRATION_SOURCE = "rendered:full?seed=78&count=256&split=train"

Rows = tuple[np.ndarray, np.ndarray]  # pixels [n, h, w, 3] uint8, widths [n] int32


def comparison_rows(
    rule: Preprocessing,
    source: str = COMPARISON_SOURCE,
    *,
    count: int = 1000,
    characters: str | None = None,
) -> Rows:
    """Returns the images that an export is compared on, or calibrated with.

    Args:
      rule: of the weights.
      source: anything `data.rendered.open_named` opens.
      count: at most so many are looked at.
      characters: take words of these alone, what restricted weights are for; None takes
        all.

    Raises:
      ValueError: the source holds no image.
    """
    records = open_named(source)
    looked_at = map(records.__getitem__, range(min(count, len(records))))
    rows = [
        resize_and_pad(pixels_of(record), rule)
        for record in looked_at
        if characters is None or set(record["text"]) <= set(characters)
    ]
    if not rows:
        of_them = f" of {characters!r} alone" if characters else ""
        raise ValueError(
            f"{source}: no words{of_them} to compare the export on; "
            "name a source that has some with --compare"
        )
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


def _texts(decoded: DecodedRows, weights: Weights) -> list[str]:
    return [weights.charset.to_text(row) for row in decoded.ids.tolist()]


def _equal(ours: Sequence[str], theirs: Sequence[str]) -> np.ndarray:
    return np.array([one == other for one, other in zip(ours, theirs, strict=True)])


def compare(
    live: DecodedRows,
    exported: DecodedRows,
    weights: Weights,
    *,
    dtype: artefact.GraphDtype = "float32",
) -> dict[str, int | float]:
    """Returns the comparison for the manifest.

    Args:
      live, exported: what both read in the same images.
      weights: for their charset.
      dtype: of the graph. A graph in "int8" may read few texts differently, and the
        largest difference of a probability is that of the texts read equal.

    Raises:
      ValueError: a text or a probability differs, or in int8 too many texts; the
        message says where and how.
    """
    ours, theirs = _texts(live, weights), _texts(exported, weights)
    equal = _equal(ours, theirs)
    if equal.mean() < (SMALLEST_SHARE if dtype == "int8" else 1):
        allowed = f" (int8 may {1 - SMALLEST_SHARE:.0%})" if dtype == "int8" else ""
        first = int(np.argmin(equal))
        raise ValueError(
            f"the exported graph reads {(~equal).sum()} of {len(equal)} images "
            f"differently{allowed}: image {first} is {ours[first]!r} live, "
            f"{theirs[first]!r} exported"
        )
    differences = np.abs(live.probabilities - exported.probabilities)[equal]
    difference = float(differences.max())
    largest = LARGEST_DIFFERENCE if dtype == "float32" else 1.0  # a number at all
    if not difference <= largest:
        raise ValueError(
            f"the exported graph's probabilities differ by {difference:.2g}, "
            f"expected at most {largest:g}"
        )
    return {
        "images": len(equal),
        "distinct_texts": len(set(ours)),
        "equal_texts": int(equal.sum()),
        "equal_share": float(equal.mean()),
        "largest_probability_difference": difference,
    }


def choose_self_test(rows: Rows, decoded: DecodedRows, weights: Weights) -> SelfTest:
    """Returns the images read most surely, each with another text.

    Surely, because another processor rounds differently, and that must not decide.
    """
    texts = _texts(decoded, weights)
    order = np.argsort(-decoded.probabilities.min(axis=1), kind="stable").tolist()
    surest: dict[str, int] = {}
    for i in order:
        surest.setdefault(texts[i], i)
    kept = list(surest.values())[:SELF_TEST_IMAGES]
    return SelfTest(
        *(array[kept] for array in (*rows, *decoded)), texts=[texts[i] for i in kept]
    )


def _write_graph(
    folder: Path,
    weights: Weights,
    graph_format: artefact.GraphFormat,
    calibration: Rows | None,
) -> None:
    if graph_format == "stablehlo":
        from robustscanner_jax.export import stablehlo

        graph = stablehlo.build(weights)
        save_weights(folder / WEIGHTS_FILE, weights, dtype="float32")
    else:
        from robustscanner_jax.export import onnx_graph

        proto = onnx_graph.build(weights)
        if calibration is not None:
            from robustscanner_jax.export.quantize import quantize

            proto = quantize(proto, *calibration)
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
    calibration: Rows | None = None,
) -> Manifest:
    """Writes the folder of an exported network, or nothing.

    Args:
      weights: what to export.
      output: the folder; an older export in it is replaced.
      graph_format: "stablehlo" or "onnx".
      rows: images to compare on, as `comparison_rows` returns them.
      calibration: images that give the ranges of 8-bit integers, none of them in
        `rows`; None exports in float32.

    Raises:
      ValueError: a package is missing, something else is in `output`, the format has no
        8-bit integers, or the exported graph does not read as the live network does.
    """
    if graph_format not in GRAPH_FILES:
        raise ValueError(
            f"format must be one of {', '.join(GRAPH_FILES)}, got {graph_format!r}"
        )
    if calibration is not None and graph_format != "onnx":
        raise ValueError(f"8-bit integers need format onnx, got {graph_format!r}")
    if graph_format == "onnx":
        for package in ("onnx", "onnxruntime"):
            optional(package, "--format=onnx")
    with staged(Path(output), replaceable=artefact.is_artefact) as folder:
        _write_graph(folder, weights, graph_format, calibration)
        backend = "jax" if graph_format == "stablehlo" else "onnxruntime"
        decode = backends.open_graph(folder, backend)
        exported = _decode_all(decode, rows, BATCH_SIZES, "exported graph")
        live = live_rows(weights, rows)
        packages = ("jax",) if backend == "jax" else ("jax", "onnx", "onnxruntime")
        dtype: artefact.GraphDtype = "float32" if calibration is None else "int8"
        manifest = Manifest(
            graph_format=graph_format,
            charset=weights.charset,
            preprocessing=weights.preprocessing,
            max_len=weights.model.max_len,
            card=weights.card,
            comparison=compare(live, exported, weights, dtype=dtype),
            versions=_versions(packages),
            dtype=dtype,
        )
        if dtype == "int8":
            # Its own answers, where they are right: the live network's are further from
            # those of other machines.
            equal = _equal(_texts(live, weights), _texts(exported, weights))
            rows = rows[0][equal], rows[1][equal]
            live = DecodedRows(*(array[equal] for array in exported))
        artefact.write(folder, manifest, choose_self_test(rows, live, weights))
    return manifest
