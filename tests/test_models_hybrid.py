"""The two branches: embeddings, and what each depends on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustscanner_jax.models.hybrid import HybridBranch
from robustscanner_jax.models.position import PositionBranch

BRANCH = HybridBranch(num_tokens=7, pad_id=5, width=8)


@pytest.fixture(scope="module")
def variables():
    return BRANCH.init(jax.random.key(0), jnp.zeros((1, 1), jnp.int32))


def test_the_padding_row_starts_at_zero_and_the_others_do_not(variables):
    rows = variables["params"]["embedding"]
    empty = ~np.asarray(rows).any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(empty), [5])


def test_the_padding_row_gets_no_gradient_even_when_padding_is_read(variables):
    tokens = jnp.array([[6, 1, 5, 5], [6, 5, 2, 5]])

    def loss(params):
        return jnp.sum(BRANCH.apply({"params": params}, tokens) ** 2)

    gradient = np.asarray(jax.grad(loss)(variables["params"])["embedding"])
    assert not gradient[5].any()
    assert gradient[[1, 2, 6]].any(axis=1).all()
    assert not gradient[[0, 3, 4]].any()  # not in the tokens


def test_the_padding_row_is_read_like_any_other_when_a_checkpoint_fills_it(variables):
    tokens = jnp.array([[5, 5]])
    filled = variables["params"]["embedding"].at[5].set(1.0)
    other = {"params": variables["params"] | {"embedding": filled}}
    assert not np.allclose(BRANCH.apply(variables, tokens), BRANCH.apply(other, tokens))


def test_queries_step_by_step_equal_those_of_the_whole_text(variables):
    tokens = jnp.array([[6, 1, 2, 3], [6, 4, 5, 0]])
    whole = BRANCH.apply(variables, tokens)
    carry = BRANCH.apply(variables, 2, method="initial_carry")
    for step in range(4):
        carry, query = BRANCH.apply(variables, carry, tokens[:, step], method="step")
        np.testing.assert_allclose(query, whole[:, step], atol=1e-6)


@pytest.fixture(scope="module")
def position():
    """Returns the branch, its variables, and a map."""
    branch = PositionBranch(num_positions=7, width=8)
    rng = np.random.default_rng(0)
    keys = jnp.asarray(rng.normal(size=(3, 2, 5, 8)), jnp.float32)
    shapes = jax.eval_shape(lambda key: branch.init(key, keys, 6), jax.random.key(0))
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32), shapes
    )
    return branch, variables, keys


def test_position_queries_are_the_same_for_every_image(position):
    branch, variables, keys = position
    queries, _ = branch.apply(variables, keys, 4)
    rows = variables["params"]["embedding"]
    assert rows.shape == (7, 8)  # one row more than the steps, as the checkpoints
    np.testing.assert_array_equal(queries, np.broadcast_to(rows[:4], (3, 4, 8)))


def test_the_position_aware_map_counts_from_left_to_right(position):
    branch, variables, _ = position
    _, counted = branch.apply(variables, jnp.ones((1, 2, 5, 8)), 6)
    # All cells look the same: convolutions alone would give equal inner columns.
    inner = np.asarray(counted)[0, 0, 1:-1]
    assert np.abs(np.diff(inner, axis=0)).max(axis=1).min() > 1e-4


def test_the_position_aware_lstm_reads_each_row_of_the_map_alone(position):
    branch, variables, keys = position
    tall = jnp.concatenate([keys] * 4, axis=1)  # [3, 8, 5, 8]
    changed = tall.at[:, :2].set(0.0)
    _, before = branch.apply(variables, tall, 6)
    _, after = branch.apply(variables, changed, 6)
    # Two 3x3 convolutions reach two rows down; the LSTM none.
    np.testing.assert_array_equal(before[:, 4:], after[:, 4:])
    assert not np.allclose(before[:, 2:4], after[:, 2:4])
