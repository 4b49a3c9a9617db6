"""Convolutions of bfloat16 tiles: all three passes are those of XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import convolution_of_xla
from hypothesis import given, settings
from hypothesis import strategies as st

from robustscanner_jax.models import tiles


def representable(rng, *shape):
    """Returns float32 numbers that rounding to bfloat16 leaves as they are."""
    x = jnp.asarray(rng.standard_normal(shape), jnp.bfloat16)
    return x.astype(jnp.float32)


@jax.jit
def of_tiles(x, kernel, y_bar):
    """Returns all three passes: the maps, and the gradients by input and kernel."""
    return tiles.convolution(x, kernel), *tiles.gradients(x, kernel, y_bar)


def of_xla(x, kernel, y_bar):
    y, pull = jax.vjp(convolution_of_xla, x, kernel)
    return y, *pull(y_bar)


@settings(max_examples=8)  # each is compiled
@given(
    maps=st.integers(1, 9),
    rows=st.integers(1, 9),
    columns=st.integers(1, 24),
    channels=st.integers(1, 20),
    features=st.integers(1, 9),
    kernel=st.sampled_from([1, 3, 5]),
)
def test_products_of_representable_numbers_are_those_of_xla(
    maps, rows, columns, channels, features, kernel
):
    rng = np.random.default_rng(0)
    x = representable(rng, maps, rows, columns, channels)
    weights = representable(rng, kernel, kernel, channels, features)
    y_bar = representable(rng, maps, rows, columns, features)
    got, want = of_tiles(x, weights, y_bar), of_xla(x, weights, y_bar)
    for ours, theirs in zip(got, want, strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        near = 1e-5 * float(abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=near)


@pytest.mark.parametrize(
    ("maps", "size", "groups"),
    [
        (64, (6, 40), 4),  # 16 maps are 3,840 cells
        (64, (48, 160), 32),  # two at least, see `tiles`
        (32, (1, 1), 2),  # two groups at least
        (62, (6, 40), 4),
        (7, (6, 40), 3),
        (1, (6, 40), 1),
    ],
)
def test_maps_are_grouped_by_what_the_cache_holds(maps, size, groups):
    x = jax.eval_shape(tiles._groups, jnp.zeros((maps, *size, 2)))
    assert x.shape == (groups, -(-maps // groups), *size, 2)


def test_maps_of_bfloat16_stay_so():
    rng = np.random.default_rng(0)

    def integers(*shape):  # sums are exact in any order
        return jnp.asarray(rng.integers(-2, 3, shape), jnp.bfloat16)

    args = integers(2, 4, 6, 16), integers(3, 3, 16, 8), integers(2, 4, 6, 8)
    for ours, theirs in zip(of_tiles(*args), of_xla(*args), strict=True):
        assert ours.dtype == jnp.bfloat16
        np.testing.assert_array_equal(ours, theirs)
