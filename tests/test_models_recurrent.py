"""The stacked LSTM against a loop in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustscanner_jax.models.recurrent import StackedLSTM


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def naive_lstm(params, inputs: np.ndarray, num_layers: int) -> np.ndarray:
    """Returns the top layer's outputs, as torch.nn.LSTM documents them."""
    for layer in range(num_layers):
        w_ih, w_hh, b_ih, b_hh = (
            np.asarray(params[f"layer{layer}_{name}"], np.float64).T
            for name in (
                "input_kernel",
                "recurrent_kernel",
                "input_bias",
                "recurrent_bias",
            )
        )
        b, t, _ = inputs.shape
        h = c = np.zeros((b, w_hh.shape[1]))
        outputs = []
        for step in range(t):
            gates = inputs[:, step] @ w_ih.T + b_ih + h @ w_hh.T + b_hh
            i, f, g, o = np.split(gates, 4, axis=1)  # PyTorch's order
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            outputs.append(h)
        inputs = np.stack(outputs, axis=1)
    return inputs


def setup(seed: int, b: int, t: int, features: int, **arguments):
    """Returns an LSTM, variables with large weights, and inputs."""
    rng = np.random.default_rng(seed)
    lstm = StackedLSTM(**arguments)
    inputs = jnp.asarray(rng.normal(size=(b, t, features)), jnp.float32)
    shapes = jax.eval_shape(lstm.init, jax.random.key(0), inputs)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32), shapes
    )
    return lstm, variables, inputs


@pytest.mark.parametrize(
    ("b", "t", "features", "width", "num_layers"),
    [(1, 1, 1, 1, 1), (3, 7, 5, 4, 2), (2, 4, 3, 6, 3)],
)
def test_the_lstm_equals_a_loop_with_the_gates_of_pytorch(
    b, t, features, width, num_layers
):
    lstm, variables, inputs = setup(
        0, b, t, features, width=width, num_layers=num_layers
    )
    expected = naive_lstm(variables["params"], np.asarray(inputs), num_layers)
    np.testing.assert_allclose(lstm.apply(variables, inputs), expected, atol=1e-5)


def test_stepping_equals_the_whole_sequence():
    lstm, variables, inputs = setup(1, 3, 9, 5, width=8)
    whole = lstm.apply(variables, inputs)
    carry = lstm.initial_carry(3)
    for step in range(inputs.shape[1]):
        carry, output = lstm.apply(variables, carry, inputs[:, step], method="step")
        np.testing.assert_allclose(output, whole[:, step], atol=1e-6)


@pytest.mark.parametrize("unroll", [4, 9, 20])
def test_writing_out_steps_of_the_loop_changes_nothing(unroll):
    lstm, variables, inputs = setup(4, 3, 9, 5, width=8)
    expected = lstm.apply(variables, inputs)
    got = lstm.clone(unroll=unroll).apply(variables, inputs)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_later_inputs_do_not_change_earlier_outputs():
    lstm, variables, inputs = setup(2, 2, 6, 4, width=8)
    changed = inputs.at[:, 3:].set(9.0)
    before, after = lstm.apply(variables, inputs), lstm.apply(variables, changed)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert not np.allclose(before[:, 3:], after[:, 3:])


def test_fresh_weights_are_uniform_within_the_bound_of_pytorch(key):
    params = StackedLSTM(16).init(key, jnp.zeros((1, 1, 10)))["params"]
    assert len(params) == 8  # two kernels and two biases a layer
    values = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(params)])
    assert np.abs(values).max() <= 16**-0.5
    assert np.abs(values).max() > 0.99 * 16**-0.5
    assert abs(values.mean()) < 0.01


def test_memory_and_gates_stay_float32_in_a_bfloat16_network():
    lstm, variables, inputs = setup(3, 2, 5, 4, width=8, dtype=jnp.bfloat16)
    carry, output = lstm.apply(
        variables, lstm.initial_carry(2), inputs[:, 0], method="step"
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(carry)} == {jnp.dtype("float32")}
    assert output.dtype == jnp.float32
    assert lstm.apply(variables, inputs).dtype == jnp.bfloat16


@pytest.mark.parametrize("unroll", [1, 4])
def test_the_gradients_are_those_that_jax_finds_by_itself(unroll):
    lstm, variables, inputs = setup(5, 3, 9, 5, width=8, num_layers=3, unroll=unroll)
    weights = jnp.asarray(np.random.default_rng(6).normal(size=(3, 9, 8)), jnp.float32)

    def loss(variables, inputs):
        return (lstm.apply(variables, inputs) * weights).sum()

    def naive_loss(variables, inputs):
        """Steps one by one: no loop, no rule for its gradient."""
        carry, total = lstm.initial_carry(3), 0.0
        for step in range(inputs.shape[1]):
            carry, output = lstm.apply(variables, carry, inputs[:, step], method="step")
            total += (output * weights[:, step]).sum()
        return total

    expected = jax.grad(naive_loss, argnums=(0, 1))(variables, inputs)
    got = jax.grad(loss, argnums=(0, 1))(variables, inputs)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_over_devices_the_loop_holds_no_reduction_of_gradients():
    """One in each step would cost a message over all devices for every character."""
    lstm, variables, inputs = setup(7, 8, 6, 16, width=16)
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    sharding = jax.NamedSharding(mesh, jax.P("data"))
    everywhere = jax.NamedSharding(mesh, jax.P())
    gradient = jax.grad(lambda v, x: (lstm.apply(v, x) ** 2).sum())
    compiled = (
        jax.jit(gradient, in_shardings=(everywhere, sharding))
        .lower(variables, inputs)
        .compile()
    )
    reductions = [
        line for line in compiled.as_text().splitlines() if " all-reduce" in line
    ]
    assert reductions  # the batch is split: the sums over it are messages
    assert not [line for line in reductions if "while/body" in line]
