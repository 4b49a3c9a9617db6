"""The weights file: whole or not at all, refused when its parts do not fit."""

import dataclasses
import json
import os
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from robustscanner_jax.charset import Charset
from robustscanner_jax.models.robustscanner import RobustScanner
from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.weights import (
    FORMAT,
    Weights,
    expected_shapes,
    flatten,
    listed,
    load_weights,
    save_weights,
    unflatten,
)

KERNEL = "params/classifier/kernel"
CHARSET = Charset.of("abcdefgh")
RULE = Preprocessing(mean=127.5, scale=127.5, clamp_first=False)


@pytest.fixture(scope="module")
def weights():
    model = RobustScanner(
        num_classes=CHARSET.num_classes,
        num_tokens=CHARSET.num_tokens,
        start_id=CHARSET.end_id,
        end_id=CHARSET.end_id,
        pad_id=CHARSET.pad_id,
        max_len=6,
        width="nano",
        mask_rounding="nearest",
        unbiased_variance=False,
    )
    rng = np.random.default_rng(0)
    leaves = {
        path: rng.normal(size=shape).astype(np.float32)
        for path, shape in expected_shapes(model).items()
    }
    card = {"source": "a test", "steps": 3, "accuracy": {"IIIT5K": 0.5}}
    return Weights(model, unflatten(leaves), CHARSET, RULE, card)


@pytest.fixture
def path(tmp_path, weights):
    path = tmp_path / "weights.safetensors"
    save_weights(path, weights)
    return path


def leaves(weights):
    return flatten(weights.variables)


def test_what_is_written_is_read(path, weights):
    read = load_weights(path)
    assert read.model == weights.model
    assert read.charset == weights.charset
    assert read.preprocessing == RULE
    assert read.card == weights.card
    assert set(leaves(read)) == set(leaves(weights))
    for name, array in leaves(weights).items():
        np.testing.assert_array_equal(leaves(read)[name], array, strict=True)


def test_names_are_paths_in_the_tree(path):
    names = set(safetensors.numpy.load_file(path))
    assert "params/backbone/stem1/conv/kernel" in names
    assert "batch_stats/backbone/stem1/norm/mean" in names


def test_the_same_weights_are_the_same_bytes(path, weights, tmp_path):
    save_weights(tmp_path / "again.safetensors", weights)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_arrays_on_a_device_and_other_float_types_are_stored(tmp_path, weights):
    variables = jax.tree.map(lambda a: jnp.asarray(a, jnp.bfloat16), weights.variables)
    model = weights.model.clone(dtype=jnp.bfloat16)
    save_weights(
        tmp_path / "w.safetensors",
        dataclasses.replace(weights, model=model, variables=variables),
    )
    read = load_weights(tmp_path / "w.safetensors")
    assert read.model.dtype == jnp.float32  # the caller's choice, not the file's
    expected = np.asarray(flatten(variables)[KERNEL], np.float32)
    np.testing.assert_array_equal(leaves(read)[KERNEL], expected, strict=True)


def test_float16_halves_kernels_and_keeps_vectors(path, weights, tmp_path):
    half = tmp_path / "half.safetensors"
    save_weights(half, weights, dtype="float16")
    assert half.stat().st_size < 0.6 * path.stat().st_size
    for name, array in leaves(load_weights(half)).items():
        assert array.dtype == np.float32
        expected = leaves(weights)[name]
        if expected.ndim < 2:
            np.testing.assert_array_equal(array, expected)
        else:
            np.testing.assert_array_equal(array, expected.astype(np.float16))


def changed(weights, name, change):
    flat = leaves(weights) | {name: change(leaves(weights)[name])}
    return dataclasses.replace(weights, variables=unflatten(flat))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_value_outside_float16_is_refused_with_its_name(weights, tmp_path, sign):
    large = changed(weights, KERNEL, lambda a: sign * (np.abs(a) + 1e5))
    with pytest.raises(ValueError, match=f"{KERNEL}: 10000.* float16"):
        save_weights(tmp_path / "w", large, dtype="float16")
    assert not list(tmp_path.iterdir())


def refused(weights, tmp_path):
    with pytest.raises(ValueError) as caught:
        save_weights(tmp_path / "refused", weights)
    return str(caught.value)


def test_weights_that_do_not_fit_are_not_written(weights, tmp_path):
    bad = changed(weights, KERNEL, lambda a: a.T)
    assert f"{KERNEL}: expected shape (64, 11), got (11, 64)" in refused(bad, tmp_path)
    bad = changed(weights, KERNEL, lambda a: a * np.nan)
    assert f"{KERNEL} holds values that are not finite" in refused(bad, tmp_path)
    bad = changed(weights, KERNEL, lambda a: a.astype(np.int32))
    assert f"{KERNEL}: expected floating-point" in refused(bad, tmp_path)
    bad = dataclasses.replace(weights, charset=Charset.of("abc"))
    assert "charset of 3 characters has classes 6, the model 11" in (
        refused(bad, tmp_path)
    )
    with pytest.raises(ValueError, match="bfloat16"):
        save_weights(tmp_path / "w", weights, dtype="bfloat16")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_older_file(path, weights, monkeypatch):
    before = path.read_bytes()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        save_weights(path, dataclasses.replace(weights, card={}))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def rewrite(path, *, arrays=None, **metadata):
    """Writes the file again with other metadata or arrays."""
    with safetensors.safe_open(path, framework="numpy") as file:
        content = json.loads(file.metadata()[FORMAT])
    content |= metadata
    content = {key: value for key, value in content.items() if value is not None}
    arrays = safetensors.numpy.load_file(path) | (arrays or {})
    arrays = {name: a for name, a in arrays.items() if a is not None}
    safetensors.numpy.save_file(arrays, path, {FORMAT: json.dumps(content)})


def load_error(path):
    with pytest.raises(ValueError) as caught:
        load_weights(path)
    text = str(caught.value)
    assert text.startswith(f"weights file {path}: ")
    return text


def test_a_missing_file_is_named(tmp_path):
    assert "No such file" in load_error(tmp_path / "none")


def test_a_folder_is_refused(tmp_path):
    load_error(tmp_path)


def test_every_cut_is_refused(path):
    whole = path.read_bytes()
    header = struct.unpack("<Q", whole[:8])[0]
    for size in (0, 4, 8, 100, 8 + header, 8 + header + 1000, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "not a whole safetensors file" in load_error(path)


def test_other_files_are_refused(path):
    path.write_bytes(b"\x89PNG" * 1000)
    assert "not a whole safetensors file" in load_error(path)
    safetensors.numpy.save_file({"a": np.zeros(3)}, path, {"format": "pt"})
    assert "not one of this project's" in load_error(path)


def test_another_format_version_is_refused(path):
    rewrite(path, format_version=99)
    assert "expected format version 1, got 99" in load_error(path)


def test_missing_and_extra_tensors_are_named(path):
    rewrite(path, arrays={KERNEL: None, "params/other": np.zeros(3, np.float32)})
    text = load_error(path)
    assert f"{KERNEL} is missing" in text
    assert "params/other is not part of the model" in text


def test_another_shape_is_named(path):
    rewrite(path, arrays={KERNEL: np.zeros((2, 3), np.float32)})
    assert f"{KERNEL}: expected shape" in load_error(path)


def test_values_that_are_not_finite_are_named(path, weights):
    rewrite(path, arrays={KERNEL: leaves(weights)[KERNEL] * np.inf})
    assert f"{KERNEL} holds values that are not finite" in load_error(path)


def test_a_charset_that_does_not_fit_the_classifier_is_named(path):
    rewrite(path, charset=dataclasses.asdict(Charset.of("abcd")))
    assert "4 characters has classes 7, the model 11" in load_error(path)


def test_options_of_a_later_version_are_named(path, weights):
    with safetensors.safe_open(path, framework="numpy") as file:
        model = json.loads(file.metadata()[FORMAT])["model"]
    rewrite(path, model=model | {"new_option": 1})
    assert "model: unknown ['new_option']" in load_error(path)
    rewrite(path, model=model | {"width": "huge"})
    assert "got 'huge'" in load_error(path)
    rewrite(path, model=model, charset={"characters": "abc"})
    assert "charset: " in load_error(path)
    rewrite(path, charset=None)
    assert "lacks ['charset']" in load_error(path)


@pytest.mark.parametrize("name", ["start_id", "end_id", "pad_id"])
def test_a_special_token_that_is_another_for_the_model_is_named(
    weights, tmp_path, name
):
    model = weights.model.clone(**{name: 0})
    bad = dataclasses.replace(weights, model=model)
    what = name.replace("_", " ")
    assert f"8 characters has {what} " in refused(bad, tmp_path)


def test_a_file_that_does_not_say_its_format_version_is_refused(path):
    rewrite(path, format_version=None)
    assert "expected format version 1, got None" in load_error(path)


def test_the_first_differences_are_listed_and_the_rest_counted():
    assert listed([*"abcdefgh"]) == "a; b; c; d; e; f; g; h"
    assert listed([*"abcdefghij"]) == "a; b; c; d; e; f; g; h; and 2 more"


@pytest.mark.parametrize("part", ["charset", "model", "preprocessing", "card"])
def test_metadata_that_lacks_a_part_is_refused_with_its_name(path, part):
    rewrite(path, **{part: None})
    assert f"its metadata lacks ['{part}']" in load_error(path)


def test_the_folder_of_a_weights_file_is_made(weights, tmp_path):
    path = tmp_path / "new" / "folder" / "weights.safetensors"
    save_weights(path, weights)
    assert load_weights(path).card == weights.card
