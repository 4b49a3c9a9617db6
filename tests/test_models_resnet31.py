"""The backbone: pooling, batch norm, sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustscanner_jax.models.batch_norm import BatchNorm
from robustscanner_jax.models.normalise import normalise
from robustscanner_jax.models.resnet31 import ResNet31, max_pool_ceil


def naive_pool(x: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    b, h, w, c = x.shape
    rows, columns = (
        -(-size // step) for size, step in zip((h, w), window, strict=True)
    )
    pooled = np.empty((b, rows, columns, c), x.dtype)
    for i in range(rows):
        for j in range(columns):
            top, left = i * window[0], j * window[1]
            cells = x[:, top : top + window[0], left : left + window[1]]
            pooled[:, i, j] = cells.max(axis=(1, 2))
    return pooled


@settings(max_examples=25)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    window=st.sampled_from([(2, 2), (2, 1), (1, 1), (3, 2)]),
    seed=st.integers(0, 99),
)
def test_pooling_keeps_the_partial_windows_at_the_edges(size, window, seed):
    # All negative: a border of zeros would win.
    x = -np.random.default_rng(seed).uniform(1, 2, (2, *size, 3)).astype(np.float32)
    for for_gradient in (False, True):
        got = max_pool_ceil(jnp.asarray(x), window, for_gradient=for_gradient)
        np.testing.assert_array_equal(got, naive_pool(x, window))


def test_the_gradient_of_pooling_goes_to_the_maximum_of_each_window():
    x = np.random.default_rng(0).permutation(5 * 3 * 2).reshape(1, 5, 3, 2)
    x = x.astype(np.float32)

    def total(v):
        return max_pool_ceil(v, (2, 2), for_gradient=True).sum()

    grads = jax.grad(total)(jnp.asarray(x))
    pooled = np.repeat(np.repeat(naive_pool(x, (2, 2)), 2, 1), 2, 2)[:, :5, :3]
    np.testing.assert_array_equal(grads, x == pooled)


def backbone_shape(scale: float, h: int, w: int) -> tuple[int, ...]:
    def run(key, image):
        return ResNet31(scale).init_with_output(key, image, train=False)[0]

    image = jax.ShapeDtypeStruct((2, h, w, 3), jnp.float32)
    return jax.eval_shape(run, jax.random.key(0), image).shape


def test_an_image_of_48_by_160_gives_a_map_of_6_by_40_by_512():
    assert backbone_shape(1.0, 48, 160) == (2, 6, 40, 512)


@pytest.mark.parametrize(("h", "w"), [(1, 1), (16, 32), (33, 70), (41, 157)])
def test_the_map_has_a_cell_for_every_8_by_4_pixels_rounded_up(h, w):
    assert backbone_shape(0.125, h, w) == (2, -(-h // 8), -(-w // 4), 64)


def norm_variables(channels: int, rng: np.random.Generator):
    def uniform():
        return jnp.asarray(rng.uniform(0.5, 2.0, channels), jnp.float32)

    return {
        "params": {"scale": uniform(), "bias": uniform()},
        "batch_stats": {"mean": uniform(), "var": uniform()},
    }


@pytest.mark.parametrize("unbiased", [True, False], ids=["PyTorch", "Paddle"])
@pytest.mark.parametrize("shape", [(1, 1, 2, 1), (3, 4, 5, 2)])
def test_batch_norm_in_training_equals_numpy(unbiased, shape):
    rng = np.random.default_rng(sum(shape))
    x = rng.normal(0.5, 3.0, shape).astype(np.float32)
    variables = norm_variables(shape[-1], rng)
    norm = BatchNorm(unbiased_variance=unbiased)
    y, updated = norm.apply(
        variables, jnp.asarray(x), train=True, mutable=["batch_stats"]
    )

    wide = x.astype(np.float64).reshape(-1, shape[-1])
    mean, var, count = wide.mean(axis=0), wide.var(axis=0), len(wide)
    scale, bias = (np.asarray(variables["params"][name]) for name in ("scale", "bias"))
    expected = (x - mean) / np.sqrt(var + 1e-5) * scale + bias
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    kept = var * count / (count - 1) if unbiased else var
    for name, value in (("mean", mean), ("var", kept)):
        running = 0.9 * np.asarray(variables["batch_stats"][name]) + 0.1 * value
        np.testing.assert_allclose(
            updated["batch_stats"][name], running, rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("unbiased", [True, False], ids=["PyTorch", "Paddle"])
def test_batch_norm_of_a_single_value_has_no_spread(unbiased):
    norm = BatchNorm(unbiased_variance=unbiased)
    variables = norm_variables(1, np.random.default_rng(0))
    y, updated = norm.apply(
        variables, jnp.full((1, 1, 1, 1), 3.0), train=True, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(y[0, 0, 0], variables["params"]["bias"], atol=1e-3)
    np.testing.assert_allclose(
        updated["batch_stats"]["var"], 0.9 * variables["batch_stats"]["var"], rtol=1e-6
    )


def test_batch_norm_in_evaluation_follows_the_formula_and_keeps_its_statistics():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    variables = norm_variables(5, rng)
    y, updated = BatchNorm().apply(
        variables, jnp.asarray(x), train=False, mutable=["batch_stats"]
    )
    scale, bias = (np.asarray(variables["params"][name]) for name in ("scale", "bias"))
    mean, var = (np.asarray(variables["batch_stats"][name]) for name in ("mean", "var"))
    np.testing.assert_allclose(
        y, (x - mean) / np.sqrt(var + 1e-5) * scale + bias, rtol=1e-5, atol=1e-5
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        updated["batch_stats"],
        variables["batch_stats"],
    )


def test_initialising_in_training_mode_does_not_count_as_an_update(key):
    x = jax.random.normal(key, (2, 3, 4, 5)) + 7
    stats = BatchNorm().init(key, x, train=True)["batch_stats"]
    np.testing.assert_array_equal(stats["mean"], np.zeros(5))
    np.testing.assert_array_equal(stats["var"], np.ones(5))


def test_batch_norm_of_bfloat16_has_float32_statistics():
    rng = np.random.default_rng(0)
    # 4096 values with a mean far from 0: sums in bfloat16 would be off by percents.
    x = jnp.asarray(rng.normal(10.0, 1.0, (4, 32, 32, 2)), jnp.bfloat16)
    variables = norm_variables(2, rng)
    norm = BatchNorm(unbiased_variance=False, dtype=jnp.bfloat16)
    y, updated = norm.apply(variables, x, train=True, mutable=["batch_stats"])
    assert y.dtype == jnp.bfloat16
    wide = np.asarray(x, np.float64).reshape(-1, 2)
    for name, value in (("mean", wide.mean(axis=0)), ("var", wide.var(axis=0))):
        got = updated["batch_stats"][name]
        assert got.dtype == jnp.float32
        running = 0.9 * np.asarray(variables["batch_stats"][name]) + 0.1 * value
        np.testing.assert_allclose(got, running, rtol=2e-5)


def test_batch_norm_passes_no_gradient_into_its_running_statistics(key):
    x = jax.random.normal(key, (2, 3, 4, 5))
    variables = BatchNorm().init(key, x, train=True)

    def running_sum(x):
        _, updated = BatchNorm().apply(variables, x, train=True, mutable="batch_stats")
        return sum(jax.tree.leaves(jax.tree.map(jnp.sum, updated)))

    np.testing.assert_array_equal(jax.grad(running_sum)(x), np.zeros(x.shape))


def test_normalising_maps_padding_to_about_minus_one():
    pixels = jnp.array([0, 127, 254, 255], jnp.uint8).reshape(1, 1, 4, 1)
    pixels = jnp.tile(pixels, (1, 1, 1, 3))
    got = normalise(pixels, mean=127.0, scale=127.0)
    np.testing.assert_allclose(got[0, 0, :, 0], [-1, 0, 1, 128 / 127], rtol=1e-6)
    paddle = normalise(pixels, mean=127.5, scale=127.5)
    published = (np.asarray(pixels) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(paddle, published, atol=1e-6)


def test_normalising_to_bfloat16_subtracts_before_it_rounds():
    pixels = jnp.arange(256, dtype=jnp.uint8).reshape(1, 1, 256, 1)
    pixels = jnp.tile(pixels, (1, 1, 1, 3))
    got = normalise(pixels, mean=127.0, scale=127.0, dtype=jnp.bfloat16)
    exact = ((np.arange(256) - 127) / 127).astype(jnp.bfloat16)
    np.testing.assert_array_equal(got[0, 0, :, 0], exact)
