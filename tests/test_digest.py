"""Digests: any bit that changes shows, and nothing else does."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from robustscanner_jax import digest

DTYPES = (np.float32, np.int32, np.uint8, np.float16)


def trees(dtype):
    return st.lists(arrays.arrays(dtype, st.integers(1, 8)), min_size=1, max_size=3)


def bits_of(array):
    return array.view(f"u{array.dtype.itemsize}")


@given(st.data(), st.sampled_from(DTYPES))
def test_every_single_bit_counts(data, dtype):
    tree = data.draw(trees(dtype))
    before = digest.of_arrays(tree)
    leaf = data.draw(st.integers(0, len(tree) - 1))
    place = data.draw(st.integers(0, tree[leaf].size - 1))
    bit = data.draw(st.integers(0, 8 * tree[leaf].dtype.itemsize - 1))
    changed = [x.copy() for x in tree]
    words = bits_of(changed[leaf])
    words[place] ^= words.dtype.type(1 << bit)
    assert digest.of_arrays(changed) != before
    assert digest.of_arrays([x.copy() for x in tree]) == before


def test_values_that_changed_places_show():
    tree = {"a": np.arange(5, dtype=np.float32), "b": np.arange(5, 10, dtype=np.int32)}
    before = digest.of_arrays(tree)
    assert digest.of_arrays({"a": tree["a"][::-1].copy(), "b": tree["b"]}) != before
    zero = np.zeros(2, np.float32)
    assert digest.of_arrays([zero, zero - 0.0]) == digest.of_arrays([zero, zero])
    assert digest.of_arrays([zero, -zero]) != digest.of_arrays([zero, zero])


def test_nan_is_as_good_as_any_value():
    tree = [np.array([np.nan, 1.0], np.float32)]
    assert digest.of_arrays(tree) == digest.of_arrays([tree[0].copy()])


@pytest.mark.parametrize("devices", [1, 8])
def test_it_does_not_matter_where_the_arrays_are(devices):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:devices]), ("data",))
    copy = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    values = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    expected = digest.of_arrays([values])
    assert digest.of_arrays([jax.device_put(jnp.asarray(values), copy)]) == expected


json_values = st.recursive(
    st.integers() | st.text() | st.booleans(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.text(), json_values))
def test_a_json_value_keeps_its_digest_through_a_file(value):
    again = json.loads(json.dumps(dict(reversed(value.items()))))
    assert digest.of_json(again) == digest.of_json(value)
    assert digest.of_json({**value, "one more": 1}) != digest.of_json(value)
