"""A batch computed in micro-batches gives the gradients of the whole batch."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
from helpers import CHARSET, MAX_LEN, distance, eloquent, small_model
from training import RULE, gradients_of

from robustscanner_jax import partition
from robustscanner_jax.data.pipeline import DEVICE_KEYS, fake_batch

compute = functools.partial(gradients_of, small_model())


def batch_of(size=8):
    """Returns a batch whose micro-batches differ in tokens: one has none in half."""
    batch = fake_batch(size, charset=CHARSET, rule=RULE, max_len=MAX_LEN, seed=5)
    for row in range(0, size, 4):
        batch["tokens"][row], batch["weight"][row] = CHARSET.pad_id, 0
    return {name: jnp.asarray(batch[name]) for name in DEVICE_KEYS}


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [2, 4])
def test_without_statistics_of_the_batch_the_gradients_are_those_of_the_whole(
    accumulate,
):
    whole, _, sums = compute(eloquent(), batch_of(), accumulate=1, train=False)
    parts, _, added = compute(
        eloquent(), batch_of(), accumulate=accumulate, train=False
    )
    assert float(optax.tree.norm(whole)) > 0.1
    # As clipping scales it: each element against the norm of all.
    norm = optax.tree.norm(whole)
    furthest = jax.tree.map(lambda x, y: jnp.abs(x - y).max() / norm, whole, parts)
    assert max(map(float, jax.tree.leaves(furthest))) < 1e-6
    assert distance(whole, parts) < 2e-6
    assert float(sums["tokens"]) == float(added["tokens"])
    assert int(sums["correct"]) == int(added["correct"])
    assert float(added["loss_sum"]) == pytest.approx(float(sums["loss_sum"]), rel=1e-6)


@pytest.mark.slow
def test_batch_norm_sees_each_micro_batch_alone():
    # Rows r and r + 1 are the same: both micro-batches are the four different rows.
    once = batch_of(4)
    twice = {name: jnp.repeat(rows, 2, axis=0) for name, rows in once.items()}
    one, stats, sums = compute(eloquent(), once, accumulate=1, train=True)
    two, twice_stats, added = compute(eloquent(), twice, accumulate=2, train=True)
    assert distance(one, two) < 1e-5
    assert float(added["tokens"]) == 2 * float(sums["tokens"])
    # The running statistics went the same way twice: 0.9 of the way, and of the rest.
    before = eloquent()["batch_stats"]
    twice_moved = jax.tree.map(lambda x, y: x + 1.9 * (y - x), before, stats)
    assert distance(twice_moved, twice_stats) < 1e-5


def test_a_micro_batch_of_filler_alone_is_nothing_to_batch_norm():
    """Rows 1, 3, 5 and 7 are the second of two micro-batches."""
    batch = batch_of()
    tokens = batch["tokens"].at[1::2].set(CHARSET.pad_id)
    _, stats, _ = compute(
        eloquent(), batch | {"tokens": tokens}, accumulate=2, train=True
    )
    first = {name: value[::2] for name, value in batch.items()}
    _, want, _ = compute(eloquent(), first, accumulate=1, train=True)
    assert distance(stats, want) < 1e-6


@pytest.mark.parametrize(("size", "accumulate"), [(8, 3), (8, 0), (12, 4)])
def test_a_batch_that_micro_batches_cannot_share_is_one_sentence(size, accumulate):
    mesh = partition.make_mesh(jax.devices()[:4])
    with pytest.raises(ValueError, match="micro-batches: choose a multiple of"):
        partition.check_batch_size(size, mesh, accumulate=accumulate)
