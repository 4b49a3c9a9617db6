"""Operations counted from the computation, for model FLOP utilisation."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest
from helpers import small_model
from hypothesis import given
from hypothesis import strategies as st

from robustscanner_jax.charset import DICT90, Charset
from robustscanner_jax.flops import PEAK_FLOPS, count, forward_flops, peak_flops
from robustscanner_jax.models.robustscanner import RobustScanner

SIZES = st.integers(1, 50)


def zeros(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@given(SIZES, SIZES, SIZES)
def test_a_matrix_product_takes_two_operations_an_inner_step(m, k, n):
    assert count(jnp.matmul, zeros(m, k), zeros(k, n)) == 2 * m * k * n


def test_a_batched_product_counts_every_matrix():
    product = count(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), zeros(3, 4, 5),
                    zeros(3, 5, 6))  # fmt: skip
    assert product == 3 * 2 * 4 * 5 * 6


def convolution(image, kernel, groups=1):
    return jax.lax.conv_general_dilated(
        image,
        kernel,
        (2, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def test_a_convolution_counts_its_outputs_times_its_kernel():
    found = count(convolution, zeros(2, 8, 6, 5), zeros(3, 3, 5, 7))
    assert found == 2 * (2 * 4 * 6 * 7) * (3 * 3 * 5)


def test_a_grouped_convolution_counts_the_channels_of_a_group():
    found = count(
        lambda i, k: convolution(i, k, 4), zeros(1, 8, 6, 8), zeros(3, 3, 2, 12)
    )
    assert found == 2 * (4 * 6 * 12) * (3 * 3 * 2)


@given(st.integers(1, 20))
def test_a_scan_counts_as_often_as_it_runs(length):
    def loop(x, w):
        return jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=length)[0]

    assert count(loop, zeros(3, 4), zeros(4, 4)) == length * 2 * 3 * 4 * 4


def test_calls_and_branches_are_entered_and_sums_are_free():
    @jax.jit
    def inner(a, b):
        return jnp.tanh(a @ b) + 1.0

    one = 2 * 3 * 4 * 5
    a, b = zeros(3, 4), zeros(4, 5)
    assert count(inner, a, b) == one
    assert count(lambda a, b: inner(a, b) + inner(2 * a, b), a, b) == 2 * one
    assert count(jax.checkpoint(inner), a, b) == one
    assert count(lambda a: jnp.sum(a * a), a) == 0


def test_a_gradient_takes_two_more_products():
    def loss(w, x):
        return jnp.sum((x @ w) ** 2)

    forward = count(loss, zeros(4, 5), zeros(3, 4))
    assert count(jax.grad(loss), zeros(4, 5), zeros(3, 4)) == 2 * forward
    both = count(jax.grad(loss, argnums=(0, 1)), zeros(4, 5), zeros(3, 4))
    assert both == 3 * forward


def test_the_base_network_takes_30_gigaflop_an_image():
    charset = Charset.of(DICT90)
    model = RobustScanner(
        num_classes=charset.num_classes,
        num_tokens=charset.num_tokens,
        start_id=charset.end_id,
        end_id=charset.end_id,
        pad_id=charset.pad_id,
        max_len=30,
        width="base",
    )
    assert forward_flops(model, (48, 160)) == pytest.approx(30.06e9, rel=5e-4)


def test_a_wider_image_takes_more():
    model = small_model()
    assert forward_flops(model, (16, 64)) > 1.5 * forward_flops(model, (16, 32))


def test_the_peak_of_an_unknown_device_is_unknown():
    known = next(iter(PEAK_FLOPS))
    assert peak_flops(SimpleNamespace(device_kind=known)) == PEAK_FLOPS[known]
    assert peak_flops(SimpleNamespace(device_kind="abacus")) is None
