"""An export answers as the live network does, or it is not written."""

import dataclasses
import importlib.metadata
import json

import jax
import numpy as np
import pytest
from exported import READERS, needs, some_rows, some_weights
from training import write_words

from robustscanner_jax import artefact
from robustscanner_jax.export import run
from robustscanner_jax.inference import load_artefact
from robustscanner_jax.staging import staged

ROWS = some_rows(3, 96)


@pytest.fixture(scope="module")
def weights():
    return some_weights()


@pytest.fixture(scope="module")
def export(weights, tmp_path_factory):
    """Returns a function: format -> folder of an export, made once."""
    made = {}

    def make(graph_format):
        if graph_format == "onnx":
            needs("onnx", "onnxruntime")
        if graph_format not in made:
            folder = tmp_path_factory.mktemp("export") / graph_format
            run.export_artefact(weights, folder, graph_format=graph_format, rows=ROWS)
            made[graph_format] = folder
        return made[graph_format]

    return make


def copy_of(folder, tmp_path):
    other = tmp_path / "copy"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    return other


@pytest.mark.parametrize(("graph_format", "backend"), READERS)
def test_an_export_reads_as_the_live_network_at_any_batch_size(
    weights, export, graph_format, backend
):
    needs(backend)
    reader = load_artefact(export(graph_format), backend)
    live = run.live_rows(weights, ROWS)
    texts = [weights.charset.to_text(row) for row in live.ids.tolist()]
    assert len(set(texts)) > 10 and len({len(text) for text in texts}) > 3
    for size in (1, 7, 64):
        found = reader.decode(ROWS[0][:size], ROWS[1][:size])
        assert found.ids.dtype == np.int32 and found.probabilities.dtype == np.float32
        np.testing.assert_array_equal(found.ids, live.ids[:size])
        np.testing.assert_allclose(
            found.probabilities, live.probabilities[:size], atol=1e-4
        )


@pytest.mark.parametrize("graph_format", ["stablehlo", "onnx"])
def test_an_export_says_what_it_is(weights, export, graph_format):
    manifest, self_test = artefact.read(export(graph_format))
    assert manifest.graph_format == graph_format
    assert manifest.charset == weights.charset
    assert manifest.preprocessing == weights.preprocessing
    assert manifest.card == weights.card
    assert manifest.comparison["images"] == manifest.comparison["equal_texts"] == 96
    assert manifest.comparison["largest_probability_difference"] < 1e-4
    assert {"robustscanner_jax", "jax"} <= set(manifest.versions)
    assert len(set(self_test.texts)) == len(self_test.texts) == run.SELF_TEST_IMAGES


@pytest.mark.parametrize(
    "changes",
    [
        {"mask_rounding": "nearest"},
        {"use_position": False},
        {"use_hybrid": False},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_an_onnx_graph_follows_the_options_of_the_network(changes):
    needs("onnx", "onnxruntime")
    import onnxruntime

    from robustscanner_jax.export import onnx_graph

    weights = some_weights(**changes)
    rows = ROWS[0][:16], ROWS[1][:16]
    live = run.live_rows(weights, rows)
    proto = onnx_graph.build(weights)
    # What ONNX Runtime reads from 1.18 on, as servers have it.
    assert [o.version for o in proto.opset_import] == [21] and proto.ir_version == 10
    graph = proto.SerializeToString()
    session = onnxruntime.InferenceSession(graph)
    ids, probabilities = session.run(None, {"image": rows[0], "width": rows[1]})
    np.testing.assert_array_equal(ids, live.ids)
    np.testing.assert_allclose(probabilities, live.probabilities, atol=1e-4)


def test_a_graph_that_reads_differently_is_not_written(weights, tmp_path, monkeypatch):
    live_rows = run.live_rows

    def other_network(weights, rows):
        return live_rows(some_weights(1), rows)

    monkeypatch.setattr(run, "live_rows", other_network)
    with pytest.raises(ValueError, match=r"reads \d+ of 96 images differently: image"):
        run.export_artefact(
            weights, tmp_path / "new", graph_format="stablehlo", rows=ROWS
        )
    assert list(tmp_path.iterdir()) == []


def test_texts_alone_do_not_make_an_export_equal(weights):
    live = run.live_rows(weights, ROWS)
    moved = live._replace(probabilities=live.probabilities - np.float32(2e-4))
    assert run.compare(live, live, weights)["equal_texts"] == 96
    with pytest.raises(ValueError, match=r"probabilities differ by 0\.0002"):
        run.compare(live, moved, weights)
    broken = live._replace(probabilities=live.probabilities * np.nan)
    with pytest.raises(ValueError, match="probabilities differ by nan"):
        run.compare(live, broken, weights)


def test_a_failed_export_leaves_the_older_one(export, tmp_path):
    folder = copy_of(export("stablehlo"), tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    replaceable = artefact.is_artefact
    with (
        pytest.raises(RuntimeError),
        staged(folder, replaceable=replaceable) as staging,
    ):
        (staging / "model.stablehlo").write_bytes(b"half")
        raise RuntimeError("killed")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_an_export_replaces_an_older_one_and_nothing_else(export, tmp_path):
    folder = copy_of(export("stablehlo"), tmp_path)
    assert artefact.is_artefact(folder)
    with staged(folder, replaceable=artefact.is_artefact) as staging:
        (staging / "new").touch()
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert not artefact.is_artefact(folder)


@pytest.mark.parametrize(
    "manifest", ["", "[]", '{"name": "a web app", "icons": []}', '{"format": 1}']
)
def test_another_programs_manifest_is_no_export(tmp_path, manifest):
    (tmp_path / "manifest.json").write_text(manifest)
    (tmp_path / "app.js").touch()
    assert not artefact.is_artefact(tmp_path)


def test_an_export_with_a_file_of_the_user_is_not_replaced(export, tmp_path):
    folder = copy_of(export("stablehlo"), tmp_path)
    (folder / "notes.txt").touch()
    assert not artefact.is_artefact(folder)


def test_the_versions_are_those_of_the_imported_packages(monkeypatch):
    """onnxruntime-gpu is imported as onnxruntime, which has then no metadata."""
    monkeypatch.setattr(importlib.metadata, "version", lambda name: 1 / 0)
    assert run._versions(["jax"])["jax"] == jax.__version__


@pytest.mark.parametrize(
    "name", ["model.stablehlo", "weights.safetensors", "selftest.npz"]
)
def test_a_changed_or_missing_file_is_refused(export, tmp_path, name):
    folder = copy_of(export("stablehlo"), tmp_path)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{name}: changed since it was written"):
        load_artefact(folder)
    (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"{name}: missing"):
        load_artefact(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "expected format version 1, got 99"),
        ({"format": "something else"}, "not the manifest of an exported network"),
        ({"max_len": 7}, r"changed since it was written \(digest\)"),
    ],
)
def test_a_changed_manifest_is_refused(export, tmp_path, change, message):
    folder = copy_of(export("stablehlo"), tmp_path)
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        load_artefact(folder)


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no export, it has no manifest.json"):
        load_artefact(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest.json: not JSON"):
        load_artefact(tmp_path)


def test_a_failing_self_test_is_refused(export, tmp_path):
    manifest, self_test = artefact.read(export("stablehlo"))
    for name, change, message in (
        ("texts", {"texts": ["never", *self_test.texts[1:]]}, "expected 'never', got"),
        (
            "probabilities",
            {"probabilities": self_test.probabilities - np.float32(0.01)},
            "probabilities differ by 0.01, expected at most 0.001",
        ),
    ):
        (tmp_path / name).mkdir()
        folder = copy_of(export("stablehlo"), tmp_path / name)
        for written in (artefact.MANIFEST_FILE, artefact.SELF_TEST_FILE):
            (folder / written).unlink()
        artefact.write(folder, manifest, dataclasses.replace(self_test, **change))
        with pytest.raises(ValueError, match=rf"the self-test fails.*{message}"):
            load_artefact(folder)


def test_an_unknown_format_is_refused(weights, tmp_path):
    with pytest.raises(ValueError, match="format must be one of stablehlo, onnx"):
        run.export_artefact(weights, tmp_path / "new", graph_format="ml", rows=ROWS)


def test_images_of_any_source_can_be_compared(tmp_path):
    import cv2

    for number in range(3):
        pixels = np.full((32, 64, 3), 50 * (number + 1), np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), pixels)
    labels = tmp_path / "labels.tsv"
    labels.write_text("".join(f"{number}.png\tword\n" for number in range(3)))
    pixels, widths = run.comparison_rows(some_weights().preprocessing, str(labels))
    assert pixels.shape == (3, 16, 32, 3) and widths.tolist() == [32, 32, 32]
    assert pixels[:, 0, 0, 0].tolist() == [50, 100, 150]


def test_restricted_weights_are_compared_on_words_of_their_characters(tmp_path):
    labels = write_words(tmp_path, ["bad", "face", "cab", "d"])
    rule = some_weights().preprocessing
    assert len(run.comparison_rows(rule, str(labels), characters="abcd")[0]) == 3
    with pytest.raises(ValueError, match=r"no words of 'xy' alone .* with --compare"):
        run.comparison_rows(rule, str(labels), characters="xy")
