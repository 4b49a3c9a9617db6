"""The C++ example is built with CMake and reads what Python reads."""

import shutil
import subprocess
from pathlib import Path

import cv2
import pytest
from exported import needs
from synthetic_fonts import fonts_or_skip

from robustscanner_jax import predict
from robustscanner_jax.data.rendered import open_named
from robustscanner_jax.data.transforms import pixels_of
from robustscanner_jax.export import run
from robustscanner_jax.inference import load_artefact
from robustscanner_jax.open_weights import open_weights

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
def test_the_example_reads_a_hundred_words_as_python_does(program, tmp_path, capsys):
    fonts_or_skip()
    weights, export = open_weights(None), tmp_path / "export"
    rows = run.comparison_rows(weights.preprocessing, count=16)
    run.export_artefact(weights, export, graph_format="onnx", rows=rows)
    words, paths = open_named("rendered:full?seed=5&count=100&split=heldout"), []
    for number in range(len(words)):
        path = tmp_path / f"{number:03d}{('.png', '.jpg')[number % 2]}"
        cv2.imwrite(str(path), pixels_of(words[number]))
        paths.append(str(path))
    reader = load_artefact(export, "openvino", batch_size=1)
    assert predict.run(reader, paths) == 0
    expected = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    done = subprocess.run([program, export, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [line.split("\t") for line in done.stdout.splitlines()]
    assert [line[:2] for line in found] == [line[:2] for line in expected]
    right = sum(line[1] == words[i]["text"] for i, line in enumerate(found))
    assert right > 70, found
    for ours, theirs in zip(found, expected, strict=True):
        # Four digits are printed: the last may round the other way.
        assert float(ours[2]) == pytest.approx(float(theirs[2]), abs=1.1e-4)


@pytest.mark.slow
def test_the_example_names_what_it_cannot_read(program, tmp_path):
    done = subprocess.run([program], capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage:")
    done = subprocess.run([program, tmp_path, "x"], capture_output=True, text=True)
    assert done.returncode == 1 and "manifest.json: cannot be read" in done.stderr
