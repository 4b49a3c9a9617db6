"""Reading images with an exported network."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from exported import READERS, needs, some_rows, some_weights

from robustscanner_jax import backends, predict
from robustscanner_jax.export import run
from robustscanner_jax.inference import load_artefact
from robustscanner_jax.recognizer import Recognizer

REPOSITORY = Path(__file__).resolve().parent.parent
ROWS = some_rows(3, 24)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Returns the folder of an export in each format."""
    needs("onnx", "onnxruntime")
    root = tmp_path_factory.mktemp("export")
    for graph_format in ("stablehlo", "onnx"):
        run.export_artefact(
            some_weights(), root / graph_format, graph_format=graph_format, rows=ROWS
        )
    return root


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Returns files of several sizes."""
    root = tmp_path_factory.mktemp("images")
    pixels, _ = some_rows(11, 6)
    for number, image in enumerate(pixels):
        scaled = cv2.resize(image, (20 + 17 * number, 23))
        cv2.imwrite(str(root / f"{number}.png"), scaled)
    return sorted(root.iterdir())


@pytest.mark.parametrize(("graph_format", "backend"), READERS)
def test_files_are_read_as_by_the_live_recognizer(
    folders, images, graph_format, backend
):
    needs(backend)
    live = Recognizer(some_weights(), dtype="float32").read(images)
    assert len({reading.text for reading in live}) > 3
    reader = load_artefact(folders / graph_format, backend, batch_size=4)
    found = reader.read(images)
    assert [r.text for r in found] == [r.text for r in live]
    for ours, theirs in zip(found, live, strict=True):
        assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-4)
        assert ours.character_confidences == pytest.approx(
            theirs.character_confidences, abs=1e-4
        )


def test_an_export_is_read_by_the_command_that_reads_weights(folders, images, capsys):
    reader = load_artefact(folders / "onnx")
    assert predict.run(reader, [str(images[0].parent), "missing.png"]) == 1
    printed = capsys.readouterr()
    assert [line.split("\t")[0] for line in printed.out.splitlines()] == [
        str(path) for path in images
    ]
    assert printed.err.startswith("missing.png: No such file")


def test_an_onnx_export_is_read_without_jax(folders):
    needs("onnxruntime")
    code = f"""
import sys
from robustscanner_jax import load_artefact
load_artefact({str(folders / "onnx")!r}, "onnxruntime")
sys.exit(sorted({{"jax", "flax", "onnx", "openvino"}} & set(sys.modules)) or 0)
"""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_openvino_is_imported_without_its_telemetry():
    needs("openvino")
    code = """
import sys
from robustscanner_jax import backends
backends._import_openvino()
sys.exit([name for name in sys.modules if "openvino_telemetry" in name] or 0)
"""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_bfloat16_is_an_option_of_openvino_alone(folders):
    needs("openvino")
    # Not `load_artefact`: a random network is too unsure for its self-test.
    exact, rounded = (
        backends.open_graph(folders / "onnx", "openvino", precision=precision)(*ROWS)
        for precision in ("float32", "bfloat16")
    )
    assert rounded.ids.shape == exact.ids.shape
    assert np.mean(rounded.ids[:, 0] == exact.ids[:, 0]) > 0.5
    with pytest.raises(ValueError, match="an option of the backend openvino"):
        load_artefact(folders / "onnx", "onnxruntime", precision="bfloat16")
    with pytest.raises(ValueError, match="precision must be one of float32, bfloat16"):
        load_artefact(folders / "onnx", precision="int4")


def test_one_thread_reads_what_all_read(folders):
    for backend in ("onnxruntime", "openvino"):
        needs(backend)
        one = load_artefact(folders / "onnx", backend, threads=1).decode(*ROWS)
        all_of_them = load_artefact(folders / "onnx", backend).decode(*ROWS)
        np.testing.assert_array_equal(one.ids, all_of_them.ids)


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system pins no process to cores"
)
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_backend_stays_on_the_cores_that_its_process_may_use(folders, backend):
    needs(backend)
    code = f"""
import os, sys
core = {{min(os.sched_getaffinity(0))}}
os.sched_setaffinity(0, core)  # before any thread begins
from robustscanner_jax.inference import load_artefact
reader = load_artefact({str(folders / "onnx")!r}, {backend!r})  # which computes
tasks = map(int, os.listdir("/proc/self/task"))
used = set().union(*map(os.sched_getaffinity, tasks))
sys.exit(f"pinned to {{core}}, uses {{used}}" if used != core else 0)
"""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_missing_package_gives_one_sentence(folders, monkeypatch):
    for name in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match="needs one of the packages openvino, onnxrun"):
        load_artefact(folders / "onnx")
    with pytest.raises(
        ValueError, match="backend onnxruntime needs the package onnxru"
    ):
        load_artefact(folders / "onnx", "onnxruntime")


def test_the_fastest_installed_backend_is_chosen(monkeypatch):
    monkeypatch.setattr(backends, "is_installed", lambda name: True)
    assert backends.choose("onnx", "auto") == "openvino"
    assert backends.choose("stablehlo", "auto") == "jax"
    monkeypatch.setattr(backends, "is_installed", lambda name: name != "openvino")
    assert backends.choose("onnx", "auto") == "onnxruntime"


def test_a_backend_for_the_other_format_is_refused(folders):
    with pytest.raises(ValueError, match="'openvino' does not read an export in"):
        load_artefact(folders / "stablehlo", "openvino")
    with pytest.raises(ValueError, match="batch_size: expected a whole number"):
        load_artefact(folders / "stablehlo", batch_size=0)


def test_a_graph_for_another_version_of_jax_is_refused(folders, tmp_path):
    for path in (folders / "stablehlo").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.stablehlo").write_bytes(b"not a graph")
    with pytest.raises(ValueError, match=r"jax [\d.]+ cannot read the graph"):
        backends.open_jax(tmp_path)
