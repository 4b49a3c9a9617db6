"""The model repository for Triton."""

import importlib.util
import warnings
from pathlib import Path

import numpy as np
import pytest
from exported import needs, some_rows, some_weights

from robustscanner_jax.export import run, triton
from robustscanner_jax.inference import load_artefact

ROWS = some_rows(3, 32)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    needs("onnx", "onnxruntime")
    folder = tmp_path_factory.mktemp("triton") / "models"
    triton.export_triton(some_weights(), folder, rows=ROWS, max_batch=16)
    return folder


def test_the_repository_has_tritons_layout_and_reads_as_the_live_network(repository):
    files = {str(p.relative_to(repository)) for p in repository.rglob("*.*")}
    assert {"robustscanner/config.pbtxt", "robustscanner/1/model.onnx"} <= files
    live = run.live_rows(some_weights(), ROWS)
    reader = load_artefact(repository / "robustscanner" / "1", "onnxruntime")
    np.testing.assert_array_equal(reader.decode(*ROWS).ids, live.ids)


def triton_schema():
    """Returns the module of Triton's messages, without the client around it."""
    needs("tritonclient")
    (folder,) = importlib.util.find_spec("tritonclient").submodule_search_locations
    path = Path(folder, "grpc", "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings(action="ignore"):  # it is older than our protobuf
        spec.loader.exec_module(module)
    return module


def test_the_configuration_is_of_tritons_schema_and_fits_the_graph(repository):
    import onnx
    from google.protobuf import text_format

    text = (repository / "robustscanner" / "config.pbtxt").read_text()
    config = text_format.Parse(text, triton_schema().ModelConfig())
    assert config.max_batch_size == 16
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 256
    graph = onnx.load(repository / "robustscanner" / "1" / "model.onnx").graph
    for ours, theirs in ((config.input, graph.input), (config.output, graph.output)):
        assert [one.name for one in ours] == [one.name for one in theirs]
        for one, value in zip(ours, theirs, strict=True):
            shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]
            dims = one.reshape.shape if one.HasField("reshape") else one.dims
            assert list(dims) == shape


def test_an_older_repository_is_replaced_and_other_folders_are_not(
    repository, tmp_path
):
    weights = some_weights()
    triton.export_triton(weights, repository, rows=ROWS, max_batch=16)
    (tmp_path / "robustscanner").mkdir()
    (tmp_path / "robustscanner" / "config.pbtxt").touch()
    with pytest.raises(ValueError, match="not empty, and not an older export"):
        triton.export_triton(weights, tmp_path, rows=ROWS)
    with pytest.raises(ValueError, match="max_batch must be at least 1, got 0"):
        triton.export_triton(weights, tmp_path / "new", rows=ROWS, max_batch=0)
    assert [path.name for path in tmp_path.rglob("*.pbtxt")] == ["config.pbtxt"]


def test_other_models_of_the_repository_stay(repository):
    other = repository / "resnet" / "1" / "model.onnx"
    other.parent.mkdir(parents=True)
    other.touch()
    triton.export_triton(some_weights(), repository, rows=ROWS, max_batch=16)
    assert other.is_file()
