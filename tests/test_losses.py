"""Token cross-entropy as a sum and a count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustscanner_jax.losses import token_cross_entropy


def naive(logits: np.ndarray, targets: np.ndarray, pad_id: int) -> tuple[float, int]:
    total, count = 0.0, 0
    for row, target in zip(
        logits.reshape(-1, logits.shape[-1]), targets.ravel(), strict=True
    ):
        if target != pad_id:
            total += np.log(np.exp(row).sum()) - row[target]
            count += 1
    return total, count


@pytest.mark.parametrize("pad_id", [5, 6, 40], ids=["a class", "beyond", "far beyond"])
@given(seed=st.integers(0, 10**6), share=st.floats(0, 1))
@settings(max_examples=25)
def test_the_loss_equals_a_loop_over_the_tokens_that_are_no_padding(
    pad_id, seed, share
):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (3, 4, 6))
    targets = rng.integers(0, 5, (3, 4))
    targets[rng.uniform(size=targets.shape) < share] = pad_id
    got_sum, got_count = token_cross_entropy(
        jnp.asarray(logits, jnp.float32), jnp.asarray(targets, jnp.int32), pad_id=pad_id
    )
    expected_sum, expected_count = naive(logits, targets, pad_id)
    np.testing.assert_allclose(got_sum, expected_sum, rtol=1e-5, atol=1e-5)
    assert got_count == expected_count


@pytest.mark.parametrize("pad_id", [5, 6])
def test_padding_gets_no_gradient_whatever_its_logits(pad_id):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(2, 4, 6)), jnp.float32)
    targets = jnp.array([[1, 2, pad_id, pad_id], [0, pad_id, pad_id, pad_id]])
    extreme = jnp.where((targets == pad_id)[..., None], 1e4 * logits, logits)

    def loss(logits):
        return token_cross_entropy(logits, targets, pad_id=pad_id)[0]

    np.testing.assert_array_equal(loss(logits), loss(extreme))
    gradient = jax.grad(loss)(extreme)
    silent = ~np.asarray(gradient).any(axis=-1)
    np.testing.assert_array_equal(silent, np.asarray(targets) == pad_id)


def test_a_batch_of_padding_alone_counts_nothing():
    logits, targets = jnp.ones((2, 3, 4)), jnp.full((2, 3), 4)
    loss, count = token_cross_entropy(logits, targets, pad_id=4)
    assert loss == 0
    assert count == 0


def test_sums_over_halves_of_a_batch_add_up_to_the_whole():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 5, 6)).astype(np.float32)
    targets = rng.integers(0, 6, (4, 5))
    whole, *halves = (
        token_cross_entropy(
            jnp.asarray(logits[rows]), jnp.asarray(targets[rows]), pad_id=5
        )
        for rows in (slice(4), slice(2), slice(2, 4))
    )
    for total, parts in zip(whole, zip(*halves, strict=True), strict=True):
        np.testing.assert_allclose(total, sum(parts), rtol=1e-6)
