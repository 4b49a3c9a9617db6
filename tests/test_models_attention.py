"""Masked attention and the rule for what is padding."""

import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustscanner_jax.models.attention import (
    attention_weights,
    read_glimpses,
    valid_cells,
)


def random_inputs(seed: int, b: int = 3, t: int = 4, s: int = 10):
    rng = np.random.default_rng(seed)
    query, keys, values = (
        jnp.asarray(rng.normal(size=(b, n, d)), jnp.float32)
        for n, d in ((t, 8), (s, 8), (s, 16))
    )
    valid = rng.uniform(size=(b, s)) < 0.5
    valid[:, rng.integers(s)] = True
    return query, keys, values, jnp.asarray(valid)


@given(seed=st.integers(0, 10**6), content=st.sampled_from([1e3, -1e3, 1e30, -1e30]))
@settings(max_examples=25)
def test_attention_ignores_whatever_is_in_the_masked_cells(seed, content):
    query, keys, values, valid = random_inputs(seed)
    clean = read_glimpses(attention_weights(query, keys, valid), values)
    masked = ~valid[:, :, None]
    weights = attention_weights(query, jnp.where(masked, content, keys), valid)
    dirty = read_glimpses(weights, jnp.where(masked, content, values))
    np.testing.assert_array_equal(clean, dirty)


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([0.0, 1.0, 100.0, 1e4]))
@settings(max_examples=25)
def test_weights_sum_to_one_over_the_valid_cells(seed, scale):
    query, keys, _, valid = random_inputs(seed)
    weights = np.asarray(attention_weights(scale * query, keys, valid))
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0, rtol=1e-5)
    assert not weights[np.broadcast_to(~valid[:, None], weights.shape)].any()


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25)
def test_attention_equals_an_unscaled_softmax_over_the_valid_cells_alone(seed):
    query, keys, values, valid = random_inputs(seed)
    got = read_glimpses(attention_weights(query, keys, valid), values)
    for row in range(len(query)):
        kept = np.asarray(valid[row])
        k, v = (np.asarray(x[row], np.float64)[kept] for x in (keys, values))
        logits = np.asarray(query[row], np.float64) @ k.T
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(got[row], weights @ v, rtol=1e-4, atol=1e-5)


def test_the_softmax_runs_in_float32_for_bfloat16_inputs():
    query, keys, _, valid = random_inputs(0)
    half = (query.astype(jnp.bfloat16), keys.astype(jnp.bfloat16))
    weights = attention_weights(*half, valid)
    assert weights.dtype == jnp.float32
    wide = attention_weights(*(x.astype(jnp.float32) for x in half), valid)
    np.testing.assert_allclose(weights, wide, rtol=1e-4, atol=1e-6)


PUBLISHED = {
    "ceil": lambda columns, ratio: math.ceil(columns * ratio),  # MMOCR
    "nearest": lambda columns, ratio: int(columns * ratio + 0.5),  # PaddleOCR
}


def valid_columns(width, image_width, map_size, rounding) -> np.ndarray:
    """Returns the number of valid columns; they must be the left ones of every row."""
    flags = valid_cells(
        jnp.asarray(width, jnp.int32),
        image_width=image_width,
        map_size=map_size,
        rounding=rounding,
    )
    flags = np.asarray(flags).reshape(-1, *map_size)
    count = flags[:, 0].sum(axis=-1)
    expected = np.arange(map_size[1]) < count[:, None, None]
    np.testing.assert_array_equal(flags, np.broadcast_to(expected, flags.shape))
    return count


@pytest.mark.parametrize("rounding", ["ceil", "nearest"])
def test_valid_columns_follow_the_published_formula_for_every_width(rounding):
    widths = np.arange(1, 161)
    expected = [max(PUBLISHED[rounding](40, w / 160), 1) for w in widths]
    got = valid_columns(widths, 160, (6, 40), rounding)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("rounding", ["ceil", "nearest"])
@pytest.mark.parametrize("image_width", [1, 30, 100, 157, 348, 640])
def test_valid_columns_are_exact_for_every_size_of_the_image(rounding, image_width):
    columns = -(-image_width // 4)
    widths = np.arange(1, image_width + 1)
    exact = [Fraction(columns * int(width), image_width) for width in widths]
    if rounding == "ceil":
        expected = [math.ceil(content) for content in exact]
    else:
        expected = [max(math.floor(content + Fraction(1, 2)), 1) for content in exact]
    got = valid_columns(widths, image_width, (1, columns), rounding)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("rounding", ["ceil", "nearest"])
def test_one_column_at_least_is_valid_and_never_more_than_there_are(rounding):
    got = valid_columns([0, 1, 160, 161, 1000], 160, (6, 40), rounding)
    np.testing.assert_array_equal(got, [1, 1, 40, 40, 40])


def test_a_row_without_any_valid_cell_gives_finite_weights():
    query, keys, _, valid = random_inputs(0)
    weights = attention_weights(query, keys, jnp.zeros_like(valid))
    assert np.isfinite(weights).all()


def test_the_mask_of_a_traced_width_equals_the_mask_of_a_known_one():
    width = jnp.arange(1, 161)
    arguments = dict(image_width=160, map_size=(6, 40), rounding="ceil")
    traced = jax.jit(lambda w: valid_cells(w, **arguments))(width)
    np.testing.assert_array_equal(traced, valid_cells(width, **arguments))
