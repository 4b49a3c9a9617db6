"""The streaming readers of MATLAB and JSON files, against those that load all."""

import json
import tracemalloc

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_builders import cells

from data_prep.builders.mat5 import stream_cells
from robustscanner_jax.data.json_list import stream_json_list

NUMBERS = st.sampled_from([np.float32, np.float64, np.int16, np.uint8]).flatmap(
    lambda kind: arrays.arrays(
        kind, arrays.array_shapes(min_dims=2, max_dims=3, max_side=4)
    )
)
STRINGS = st.lists(
    st.text(
        st.characters(min_codepoint=33, max_codepoint=1000), min_size=1, max_size=9
    ),
    min_size=1,
    max_size=4,
).map(lambda rows: np.array(rows))


@given(st.lists(NUMBERS | STRINGS, min_size=1, max_size=6), st.booleans())
@settings(max_examples=50)
def test_streamed_cells_are_the_loaded_ones(tmp_path_factory, values, compressed):
    path = tmp_path_factory.mktemp("mat") / "gt.mat"
    content = {"first": np.eye(3), "wanted": cells(values), "last": "text"}
    scipy.io.savemat(path, content, do_compression=compressed)
    loaded = scipy.io.loadmat(path)["wanted"][0]
    streamed = list(stream_cells(path, "wanted"))
    assert len(streamed) == len(loaded)
    for got, expected in zip(streamed, loaded, strict=True):
        if isinstance(got, list):
            got = np.array([row.rstrip(" ") for row in got])
            expected = np.char.rstrip(expected, " ")
        np.testing.assert_array_equal(got, expected)


def test_a_long_mat_file_is_read_in_little_memory(tmp_path):
    rng = np.random.default_rng(0)
    values = [rng.normal(size=(2, 4, 40)) for _ in range(4000)]  # 10 MB
    scipy.io.savemat(tmp_path / "gt.mat", {"x": cells(values)}, do_compression=True)
    del values
    tracemalloc.start()
    total = sum(cell.size for cell in stream_cells(tmp_path / "gt.mat", "x"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 4000 * 320 and peak < 1e6


def test_a_mat_file_that_is_none_says_so(tmp_path):
    path = tmp_path / "gt.mat"
    scipy.io.savemat(path, {"x": cells([np.eye(2)] * 50)}, do_compression=True)
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="expected a variable 'y'"):
        list(stream_cells(path, "y"))
    path.write_bytes(whole[: len(whole) - 20])
    with pytest.raises(ValueError, match="cut off"):
        list(stream_cells(path, "x"))
    path.write_bytes(whole[:140] + b"\xff" * 40 + whole[180:])
    with pytest.raises(ValueError, match=r"gt\.mat: "):
        list(stream_cells(path, "x"))
    path.write_bytes(b"MATLAB 7.3 MAT-file" + b" " * 200)
    with pytest.raises(ValueError, match=r"this is MATLAB 7\.3 \(HDF5\)"):
        list(stream_cells(path, "x"))
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="expected a MATLAB 5 file"):
        list(stream_cells(path, "x"))
    scipy.io.savemat(path, {"x": np.eye(2)})
    with pytest.raises(ValueError, match="expected 'x' to be a cell array"):
        list(stream_cells(path, "x"))


VALUES = st.recursive(
    st.text(max_size=20) | st.booleans(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=5), VALUES)),
    st.sampled_from([None, 1]),
    st.integers(1, 40),
)
def test_a_streamed_list_is_the_loaded_one(tmp_path_factory, entries, indent, block):
    path = tmp_path_factory.mktemp("json") / "labels.json"
    content = {"metainfo": {"a": [1]}, "data_list": entries, "more": {}}
    path.write_text(json.dumps(content, indent=indent), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("robustscanner_jax.data.json_list._BLOCK", block)
        assert list(stream_json_list(path, "data_list")) == entries


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"data_list": [{"a": 1}, {"b"', "not JSON, or cut off"),
        ('{"other": []}', 'expected a key "data_list"'),
        ('{"data_list": {}}', "expected a list under"),
    ],
)
def test_a_list_that_is_none_says_so(tmp_path, content, message):
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        list(stream_json_list(path, "data_list"))
