"""Convolutions: whichever way they are differentiated, the gradients are the same."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import convolution_of_xla
from hypothesis import given, settings
from hypothesis import strategies as st

from robustscanner_jax.models import convolution, tiles
from robustscanner_jax.models.convolution import kernel_gradient, same_conv
from robustscanner_jax.models.robustscanner import RobustScanner

FEW = convolution.MIN_CHANNELS
ENOUGH_CELLS = (10, 20)


def gradients_of_a_random_loss(conv, size, channels, *, dtype=jnp.float32):
    """Returns the output, and the gradients by the parameters and the input."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, *size, channels), dtype)
    variables = conv.init(keys[1], x)
    y = conv.apply(variables, x)
    y_bar = jax.random.normal(keys[2], y.shape, dtype)

    def loss(variables, x):
        return (conv.apply(variables, x) * y_bar).sum()

    return y, jax.jit(jax.grad(loss, argnums=(0, 1)))(variables, x)


def furthest(a, b):
    """Returns the largest difference relative to the largest value, over the leaves."""
    return max(
        float(abs(x - y).max() / abs(y).max())
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@settings(max_examples=20)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 24),
    channels=st.integers(1, FEW + 4),
    features=st.integers(1, 9),
    kernel=st.sampled_from([1, 3, 5]),
)
def test_the_kernels_gradient_is_that_of_xla(rows, columns, channels, features, kernel):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, rows, columns, channels), np.float32)
    y_bar = rng.standard_normal((3, rows, columns, features), np.float32)
    zeros = jnp.zeros((kernel, kernel, channels, features))
    for dtype in (jnp.float32, jnp.bfloat16):
        factors = x.astype(dtype), y_bar.astype(dtype)
        maps, bars = (factor.astype(np.float32) for factor in factors)
        convolve = functools.partial(convolution_of_xla, maps)
        (want,) = jax.linear_transpose(convolve, zeros)(bars)
        got = jax.jit(kernel_gradient, static_argnums=2)(*factors, kernel)
        assert got.dtype == jnp.float32  # the sums, whatever the factors
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * abs(want).max())


@pytest.mark.parametrize("size", [ENOUGH_CELLS, (3, 4)])
@pytest.mark.parametrize("channels", [FEW - 1, FEW])
@pytest.mark.parametrize("kernel", [1, 3])
def test_all_gradients_of_a_convolution_agree(kernel, channels, size):
    plain, taps = (
        same_conv(8, kernel, training_factors=f) for f in (None, jnp.float32)
    )
    y, gradients = gradients_of_a_random_loss(taps, size, channels)
    want_y, want = gradients_of_a_random_loss(plain, size, channels)
    np.testing.assert_array_equal(y, want_y)  # reading is not touched
    assert furthest(gradients, want) < 1e-5


def test_bfloat16_factors_round_training_and_not_reading():
    plain, rounded = (same_conv(8, 3, training_factors=f) for f in (None, jnp.bfloat16))
    y, gradients = gradients_of_a_random_loss(rounded, ENOUGH_CELLS, FEW)
    want_y, want = gradients_of_a_random_loss(plain, ENOUGH_CELLS, FEW)
    np.testing.assert_array_equal(y, want_y)
    for got, exact in zip(gradients, want, strict=True):
        assert 1e-5 < furthest(got, exact) < 2e-2
    bias, want_bias = (params["params"]["bias"] for params, _ in (gradients, want))
    np.testing.assert_allclose(bias, want_bias, rtol=1e-5)
    variables = rounded.init(jax.random.key(1), jnp.ones((2, 8, 8, FEW)))
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, FEW))
    trained, _ = jax.vjp(lambda x: rounded.apply(variables, x), x)
    assert 1e-5 < furthest(trained, plain.apply(variables, x)) < 2e-2


def test_float64_stays_float64():
    with jax.enable_x64(True):
        plain, taps = (
            same_conv(8, 3, training_factors=f, param_dtype=jnp.float64)
            for f in (None, jnp.float64)
        )
        make = functools.partial(
            gradients_of_a_random_loss, size=ENOUGH_CELLS, channels=FEW
        )
        got, want = (make(conv, dtype=jnp.float64)[1] for conv in (taps, plain))
        assert furthest(got, want) < 1e-13


@pytest.mark.parametrize(
    ("factors", "module", "function", "shape_of"),
    [
        (
            jnp.float32,
            convolution,
            "kernel_gradient",
            lambda x, y_bar, size: (size, size, x.shape[-1], y_bar.shape[-1]),
        ),
        (jnp.bfloat16, tiles, "convolution", lambda x, kernel: kernel.shape),
        (jnp.bfloat16, tiles, "gradients", lambda x, kernel, y_bar: kernel.shape),
    ],
)
def test_every_convolution_of_the_network_takes_the_choice(
    monkeypatch, factors, module, function, shape_of
):
    taken = []
    real = getattr(module, function)

    def spy(*args):
        taken.append(shape_of(*args))
        return real(*args)

    monkeypatch.setattr(module, function, spy)
    model = RobustScanner(width="tiny", max_len=3, training_factors=factors)
    image, width = jnp.zeros((1, 128, 128, 3)), jnp.full(1, 128)
    tokens = jnp.zeros((1, 3), jnp.int32)

    def loss(variables):
        return model.apply(variables, image, width, tokens, train=False).sum()

    variables = jax.eval_shape(
        functools.partial(model.init, train=False),
        jax.random.key(0), image, width, tokens,
    )  # fmt: skip
    jax.eval_shape(jax.grad(loss), variables)
    kernels = [v for v in jax.tree.leaves(variables["params"]) if v.ndim == 4]
    stem = 3  # channels of the image: too few
    assert sorted(taken) == sorted(k.shape for k in kernels if k.shape[2] != stem)
