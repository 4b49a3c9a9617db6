"""An export in 8-bit integers reads nearly as the live network, and says what it is.

A random network is far more sensitive to rounding than one that reads: here few equal
texts are enough, and the slow tests take the shipped weights.
"""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from exported import needs, some_rows, some_weights
from synthetic_fonts import fonts_or_skip

from robustscanner_jax import artefact
from robustscanner_jax.export import run, triton
from robustscanner_jax.inference import load_artefact
from robustscanner_jax.open_weights import open_weights

needs("onnx", "onnxruntime")
ROWS = some_rows(3, 96)
CALIBRATION = some_rows(4, 64)
SHARE = 0.15  # of the texts of a random network
# As a program of others does: default options, in a process of its own.
LOAD = """
import sys
import onnxruntime
session = onnxruntime.InferenceSession(
    sys.argv[1], providers=["CPUExecutionProvider"]
)
print([value.name for value in session.get_outputs()])
"""


@pytest.fixture(scope="module")
def weights():
    return some_weights()


@pytest.fixture(scope="module")
def folder(weights, tmp_path_factory):
    """Returns the folder of an export in 8-bit integers."""
    output = tmp_path_factory.mktemp("int8") / "exported"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "SMALLEST_SHARE", SHARE)
        run.export_artefact(
            weights, output, graph_format="onnx", rows=ROWS, calibration=CALIBRATION
        )
    return output


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Returns the folder of the shipped weights tiny, and words that they read."""
    fonts_or_skip()
    weights = open_weights("tiny")
    rule = weights.preprocessing
    rows = run.comparison_rows(rule, count=200)
    calibration = run.comparison_rows(rule, run.CALIBRATION_SOURCE, count=64)
    output = tmp_path_factory.mktemp("tiny") / "exported"
    run.export_artefact(
        weights, output, graph_format="onnx", rows=rows, calibration=calibration
    )
    return output, rows


def operators(path):
    import onnx

    graph = onnx.load(path).graph
    made_by = {name: node for node in graph.node for name in node.output}
    return [
        (node, made_by[node.input[0]].op_type == "DequantizeLinear")
        for node in graph.node
        if node.op_type == "Conv"
    ]


def load_elsewhere(graph):
    done = subprocess.run(
        [sys.executable, "-c", LOAD, graph], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['ids', 'probabilities']"


def copy_with(folder, output, **changes):
    """Writes the export again with other fields of the manifest or the self-test."""
    manifest, self_test = artefact.read(folder)
    output.mkdir()
    (output / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    fields = {field.name for field in dataclasses.fields(manifest)}
    of_manifest = {key: value for key, value in changes.items() if key in fields}
    of_test = {key: value for key, value in changes.items() if key not in fields}
    artefact.write(
        output,
        dataclasses.replace(manifest, **of_manifest),
        dataclasses.replace(self_test, **of_test),
    )
    return output


def test_a_fresh_process_opens_the_graph_with_default_options(folder):
    """ONNX Runtime aborts a process that opens a graph quantised to its end."""
    load_elsewhere(folder / "model.onnx")


def test_the_convolutions_of_the_backbone_alone_are_in_integers(folder):
    found = operators(folder / "model.onnx")
    assert len(found) > 30
    for node, quantised in found:
        assert quantised == node.name.startswith("backbone/"), node.name


def test_the_manifest_says_int8_and_how_many_texts_were_equal(folder, weights):
    manifest, self_test = artefact.read(folder)
    comparison = manifest.comparison
    assert manifest.dtype == "int8" and comparison["images"] == 96
    assert SHARE < comparison["equal_share"] == comparison["equal_texts"] / 96 < 1
    live = run.live_rows(weights, (self_test.image, self_test.width))
    read = [weights.charset.to_text(row) for row in live.ids.tolist()]
    assert read == self_test.texts
    assert not np.allclose(live.probabilities, self_test.probabilities, atol=1e-4)


def test_the_self_test_holds_what_the_graph_itself_answered(folder):
    _, self_test = artefact.read(folder)
    reader = load_artefact(folder, "onnxruntime")
    found = reader.decode(self_test.image, self_test.width)
    np.testing.assert_array_equal(found.ids, self_test.ids)
    np.testing.assert_allclose(found.probabilities, self_test.probabilities, atol=1e-4)


def test_a_self_test_that_fails_is_refused(folder, tmp_path):
    _, self_test = artefact.read(folder)
    near = self_test.probabilities - np.float32(0.05)
    load_artefact(copy_with(folder, tmp_path / "a", probabilities=near), "onnxruntime")
    far = self_test.probabilities - np.float32(0.2)
    other = copy_with(folder, tmp_path / "b", probabilities=far)
    with pytest.raises(ValueError, match=r"differ by 0\.2, expected at most 0\.1"):
        load_artefact(other, "onnxruntime")
    exact = copy_with(folder, tmp_path / "c", probabilities=near, dtype="float32")
    with pytest.raises(ValueError, match=r"expected at most 0\.001"):
        load_artefact(exact, "onnxruntime")


def test_a_changed_graph_is_refused(folder, tmp_path):
    other = copy_with(folder, tmp_path / "copy")
    data = bytearray((other / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (other / "model.onnx").write_bytes(data)
    with pytest.raises(ValueError, match=r"model\.onnx: changed since it was written"):
        load_artefact(other)


def rewrite_manifest(folder, change):
    path = folder / artefact.MANIFEST_FILE
    fields = json.loads(path.read_text())
    del fields["digest"]
    change(fields)
    fields["digest"] = artefact._digest(fields)
    path.write_text(json.dumps(fields))


def test_an_export_from_before_8_bit_integers_is_float32(folder, tmp_path):
    other = copy_with(folder, tmp_path / "copy")
    rewrite_manifest(other, lambda fields: fields.pop("dtype"))
    assert artefact.read(other)[0].dtype == "float32"
    assert load_artefact(other, "onnxruntime").weights.dtype == "float32"


def test_an_unknown_dtype_of_a_graph_is_refused(folder, tmp_path):
    other = copy_with(folder, tmp_path / "copy")
    rewrite_manifest(other, lambda fields: fields.update(dtype="int4"))
    with pytest.raises(ValueError, match="expected dtype float32 or int8, got 'int4'"):
        load_artefact(other)


def test_a_graph_that_reads_too_much_differently_leaves_the_older_export(
    folder, tmp_path, weights, monkeypatch
):
    older = copy_with(folder, tmp_path / "exported")
    before = {path.name: path.read_bytes() for path in older.iterdir()}
    monkeypatch.setattr(run, "SMALLEST_SHARE", 0.99)
    message = r"reads \d+ of 96 images differently \(int8 may 1%\): image \d+ is"
    with pytest.raises(ValueError, match=message):
        run.export_artefact(
            weights, older, graph_format="onnx", rows=ROWS, calibration=CALIBRATION
        )
    assert {path.name: path.read_bytes() for path in older.iterdir()} == before
    assert list(tmp_path.iterdir()) == [older]


def test_an_int8_graph_may_be_unsure_but_its_numbers_are_numbers(weights):
    live = run.live_rows(weights, ROWS)
    moved = live._replace(probabilities=live.probabilities - np.float32(2e-4))
    found = run.compare(live, moved, weights, dtype="int8")
    assert found["equal_share"] == 1
    assert found["largest_probability_difference"] == pytest.approx(2e-4, rel=1e-2)
    broken = live._replace(probabilities=live.probabilities * np.nan)
    with pytest.raises(ValueError, match="probabilities differ by nan"):
        run.compare(live, broken, weights, dtype="int8")


def test_stablehlo_has_no_8_bit_integers(weights, tmp_path):
    with pytest.raises(ValueError, match="need format onnx, got 'stablehlo'"):
        run.export_artefact(
            weights,
            tmp_path / "new",
            graph_format="stablehlo",
            rows=ROWS,
            calibration=CALIBRATION,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_triton_repository_holds_the_graph_in_operators_of_older_servers(
    weights, tmp_path, monkeypatch
):
    import onnx

    monkeypatch.setattr(run, "SMALLEST_SHARE", SHARE)
    triton.export_triton(weights, tmp_path, rows=ROWS, calibration=CALIBRATION)
    graph = tmp_path / "robustscanner" / "1" / "model.onnx"
    assert artefact.read(graph.parent)[0].dtype == "int8"
    assert [o.version for o in onnx.load(graph).opset_import] == [21]
    load_elsewhere(graph)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "precision"),
    [("onnxruntime", "float32"), ("openvino", "float32"), ("openvino", "bfloat16")],
)
def test_weights_that_read_give_nearly_the_same_texts(tiny, backend, precision):
    needs(backend)
    folder, rows = tiny
    reader = load_artefact(folder, backend, precision=precision)
    weights = open_weights("tiny")
    live, found = (
        [weights.charset.to_text(ids) for ids in decoded.ids.tolist()]
        for decoded in (run.live_rows(weights, rows), reader.decode(*rows))
    )
    same = [ours == theirs for ours, theirs in zip(live, found, strict=True)]
    assert np.mean(same) >= run.SMALLEST_SHARE


@pytest.mark.slow
def test_weights_that_read_open_in_a_fresh_process_and_are_smaller(tiny):
    load_elsewhere(tiny[0] / "model.onnx")
    assert (tiny[0] / "model.onnx").stat().st_size < 8e6  # of 15e6 in float32
