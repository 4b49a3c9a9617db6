"""A stack of LSTM layers: over a whole sequence, and one step with a carried state.

The gradient of the weights is one product over all steps, after the loop. Left to
JAX it is a sum that the loop carries: more kernels a step, and, with the batch split
over devices, a reduction over all of them in each.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from robustscanner_jax.models.precision import wide


class Cell(NamedTuple):
    """The state of one layer."""

    hidden: Float[Array, "b d"]
    memory: Float[Array, "b d"]


Carry = tuple[Cell, ...]  # one cell a layer, the lowest first
# An int, or a symbol while a graph for any size is exported; JAX has no public type.
BatchSize = Any


class Weights(NamedTuple):
    """The parameters of one layer; gates in PyTorch's order i, f, g, o."""

    input_kernel: Float[Array, "c 4*d"]
    recurrent_kernel: Float[Array, "d 4*d"]
    # Two biases, although their sum is all that counts: the published checkpoints hold
    # both, and an optimiser moves each.
    input_bias: Float[Array, "4*d"]
    recurrent_bias: Float[Array, "4*d"]


Stack = tuple[Weights, ...]  # the lowest layer first


def lstm_cell(
    weights: Weights,
    cell: Cell,
    inputs: Float[Array, "b c"],
    *,
    dtype: DTypeLike,
    shift: Float[Array, "b g"] | float = 0.0,
) -> Cell:
    """Returns the next state; its `hidden` is the layer's output.

    Products run in `dtype`, gates and memory in float32 or wider. `shift` is added to
    the gates: the gradient by it is theirs.
    """
    bias = weights.input_bias + weights.recurrent_bias
    gates = jnp.dot(inputs.astype(dtype), weights.input_kernel.astype(dtype))
    gates += jnp.dot(cell.hidden.astype(dtype), weights.recurrent_kernel.astype(dtype))
    gates = gates.astype(wide(dtype)) + bias[None, :] + shift
    input_gate, forget_gate, candidate, output_gate = jnp.split(gates, 4, axis=-1)
    memory = nn.sigmoid(forget_gate) * cell.memory
    memory += nn.sigmoid(input_gate) * jnp.tanh(candidate)
    return Cell(nn.sigmoid(output_gate) * jnp.tanh(memory), memory)


def zero_carry(b: BatchSize, width: int, num_layers: int, dtype: DTypeLike) -> Carry:
    """Returns the state before the first step, float32 or wider."""
    zeros = jnp.zeros((b, width), wide(dtype))
    return (Cell(zeros, zeros),) * num_layers


def advance(
    stack: Stack,
    carry: Carry,
    inputs: Float[Array, "b c"],
    *,
    dtype: DTypeLike,
    shifts: tuple[Float[Array, "b g"], ...] | None = None,
) -> Carry:
    """Returns the state of all layers after one step."""
    cells = []
    for layer, (weights, cell) in enumerate(zip(stack, carry, strict=True)):
        shift = shifts[layer] if shifts else 0.0
        cells.append(lstm_cell(weights, cell, inputs, dtype=dtype, shift=shift))
        inputs = cells[-1].hidden
    return tuple(cells)


def _all_hidden(
    stack: Stack,
    inputs: Float[Array, "t b c"],
    shifts: tuple[Float[Array, "t b g"], ...] | None,
    dtype: DTypeLike,
    unroll: int,
) -> tuple[Float[Array, "t b d"], ...]:
    """Returns every layer's output at every step, in `dtype`."""

    def body(carry: Carry, step):
        # The input projection stays inside: hoisting it out of the loop was
        # 2.3 times slower on CPU.
        x, shifts = step
        carry = advance(stack, carry, x, dtype=dtype, shifts=shifts)
        return carry, tuple(cell.hidden.astype(dtype) for cell in carry)

    width = stack[0].recurrent_kernel.shape[0]
    carry = zero_carry(inputs.shape[1], width, len(stack), dtype)
    return jax.lax.scan(body, carry, (inputs, shifts), unroll=unroll)[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def run_stack(
    stack: Stack, inputs: Float[Array, "t b c"], dtype: DTypeLike, unroll: int
) -> Float[Array, "t b d"]:
    """Returns the top layer's output at every step, from the zero state."""
    return _all_hidden(stack, inputs, None, dtype, unroll)[-1]


def _forward(stack: Stack, inputs: Array, dtype: DTypeLike, unroll: int):
    t, b, _ = inputs.shape
    shifts = tuple(
        jnp.zeros((t, b, layer.input_bias.size), wide(dtype)) for layer in stack
    )
    hidden, pull_back = jax.vjp(
        lambda inputs, shifts: _all_hidden(stack, inputs, shifts, dtype, unroll),
        inputs,
        shifts,
    )
    return hidden[-1], (stack, inputs, hidden, pull_back)


def _backward(dtype: DTypeLike, unroll: int, residuals, top_bar: Array):
    del unroll
    stack, inputs, hidden, pull_back = residuals
    below = tuple(jnp.zeros_like(h) for h in hidden[:-1])
    inputs_bar, gates_bar = pull_back((*below, top_bar))
    stack_bar = []
    layer_inputs = (inputs, *hidden[:-1])
    for weights, x, h, bar in zip(stack, layer_inputs, hidden, gates_bar, strict=True):
        before = jnp.concatenate([jnp.zeros_like(h[:1]), h[:-1]])
        bias = bar.sum((0, 1))
        gradients = Weights(
            _over_steps(x, bar, dtype), _over_steps(before, bar, dtype), bias, bias
        )
        stack_bar.append(
            jax.tree.map(lambda g, w: g.astype(w.dtype), gradients, weights)
        )
    return tuple(stack_bar), inputs_bar


def _over_steps(
    factor: Float[Array, "t b c"], bar: Float[Array, "t b g"], dtype: DTypeLike
) -> Float[Array, "c g"]:
    return jnp.einsum(
        "tbc,tbg->cg",
        factor.astype(dtype),
        bar.astype(dtype),
        preferred_element_type=wide(dtype),
    )


run_stack.defvjp(_forward, _backward)


class StackedLSTM(nn.Module):
    """Unidirectional LSTM layers, each reading the one below.

    Attributes:
      width: of the state and the output.
      num_layers: layers in the stack.
      dtype: of the matrix products; parameters, gates and memory are at
        least float32.
      unroll: steps of a whole sequence's loop written out, so that an accelerator
        starts fewer kernels; the result is the same.
    """

    width: int = 128
    num_layers: int = 2
    dtype: DTypeLike = jnp.float32
    unroll: int = 1

    def initial_carry(self, b: BatchSize) -> Carry:
        """Returns the zero state for `b` sequences."""
        return zero_carry(b, self.width, self.num_layers, self.dtype)

    @nn.compact
    def _weights(self, features: int) -> Stack:
        bound = self.width**-0.5  # PyTorch's initialisation

        def uniform(key, shape):
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        stack = []
        for layer in range(self.num_layers):
            inputs = features if layer == 0 else self.width
            shapes = (
                (inputs, 4 * self.width),
                (self.width, 4 * self.width),
                (4 * self.width,),
                (4 * self.width,),
            )
            stack.append(
                Weights(
                    *(
                        self.param(f"layer{layer}_{field}", uniform, shape)
                        for field, shape in zip(Weights._fields, shapes, strict=True)
                    )
                )
            )
        return tuple(stack)

    def step(
        self, carry: Carry, inputs: Float[Array, "b c"]
    ) -> tuple[Carry, Float[Array, "b d"]]:
        """Returns the next state and the top layer's output for one time step."""
        stack = self._weights(inputs.shape[-1])
        carry = advance(stack, carry, inputs, dtype=self.dtype)
        return carry, carry[-1].hidden

    def __call__(self, inputs: Float[Array, "b t c"]) -> Float[Array, "b t d"]:
        """Returns the top layer's output at every step, from the zero state."""
        stack = self._weights(inputs.shape[-1])
        outputs = run_stack(stack, jnp.swapaxes(inputs, 0, 1), self.dtype, self.unroll)
        return jnp.swapaxes(jnp.asarray(outputs), 0, 1)
