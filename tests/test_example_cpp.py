"""The C++ example is built with CMake and reads what Python reads."""

import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from exported import needs, some_rows, some_weights

from robustscanner_jax import predict
from robustscanner_jax.export import run
from robustscanner_jax.inference import load_artefact

SOURCE = Path(__file__).resolve().parent.parent / "examples" / "cpp"
HEADER = "opencv2/imgcodecs.hpp"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Returns the built example."""
    needs("openvino", "onnx", "onnxruntime")
    from robustscanner_jax.backends import _import_openvino

    if not shutil.which("cmake") or not shutil.which("g++"):
        pytest.skip("needs cmake and g++")
    if not any(Path("/usr/include", name, HEADER).exists() for name in ("opencv4", "")):
        pytest.skip("needs libopencv-imgcodecs-dev and libopencv-imgproc-dev")
    cmake = Path(_import_openvino().__file__).parent / "cmake"
    build = tmp_path_factory.mktemp("build")
    for command in (
        ["cmake", "-S", SOURCE, "-B", build, f"-DOpenVINO_DIR={cmake}"],
        ["cmake", "--build", build],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return build / "read_words"


@pytest.mark.slow
def test_the_example_reads_a_hundred_images_as_python_does(program, tmp_path, capsys):
    weights, rows = some_weights(), some_rows(3, 64)
    export = tmp_path / "export"
    run.export_artefact(weights, export, graph_format="onnx", rows=rows)
    rng = np.random.default_rng(0)
    paths = []
    for number, pixels in enumerate(some_rows(5, 100)[0]):
        size = int(rng.integers(8, 200)), int(rng.integers(8, 60))
        path = tmp_path / f"{number:03d}{rng.choice(['.png', '.jpg'])}"
        cv2.imwrite(str(path), cv2.resize(pixels, size))
        paths.append(str(path))
    reader = load_artefact(export, "openvino", batch_size=1)
    assert predict.run(reader, paths) == 0
    expected = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    done = subprocess.run([program, export, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[:2] for line in found] == [line[:2] for line in expected]
    assert len({text for _, text, _ in found}) > 20
    for ours, theirs in zip(found, expected, strict=True):
        # Four digits are printed: the last may round the other way.
        assert float(ours[2]) == pytest.approx(float(theirs[2]), abs=1.1e-4)


@pytest.mark.slow
def test_the_example_names_what_it_cannot_read(program, tmp_path):
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage:")
    done = subprocess.run([program, tmp_path, "x"], capture_output=True, text=True)
    assert done.returncode == 1 and "manifest.json: cannot be read" in done.stderr
