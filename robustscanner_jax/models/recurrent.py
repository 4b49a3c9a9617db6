"""A stack of LSTM layers: over a whole sequence, and one step with a carried state."""

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


def lstm_cell(
    weights: Weights, cell: Cell, inputs: Float[Array, "b c"], *, dtype: DTypeLike
) -> Cell:
    """Returns the next state; its `hidden` is the layer's output.

    Products run in `dtype`, gates and memory in float32 or wider.
    """
    bias = weights.input_bias + weights.recurrent_bias
    gates = jnp.dot(inputs.astype(dtype), weights.input_kernel.astype(dtype))
    gates += jnp.dot(cell.hidden.astype(dtype), weights.recurrent_kernel.astype(dtype))
    gates = gates.astype(wide(dtype)) + bias[None, :]
    input_gate, forget_gate, candidate, output_gate = jnp.split(gates, 4, axis=-1)
    memory = nn.sigmoid(forget_gate) * cell.memory
    memory += nn.sigmoid(input_gate) * jnp.tanh(candidate)
    return Cell(nn.sigmoid(output_gate) * jnp.tanh(memory), memory)


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
        zeros = jnp.zeros((b, self.width), wide(self.dtype))
        return (Cell(zeros, zeros),) * self.num_layers

    @nn.compact
    def _weights(self, features: int) -> tuple[Weights, ...]:
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

    def _advance(
        self, stack: tuple[Weights, ...], carry: Carry, inputs: Float[Array, "b c"]
    ) -> Carry:
        cells = []
        for weights, cell in zip(stack, carry, strict=True):
            cells.append(lstm_cell(weights, cell, inputs, dtype=self.dtype))
            inputs = cells[-1].hidden
        return tuple(cells)

    def step(
        self, carry: Carry, inputs: Float[Array, "b c"]
    ) -> tuple[Carry, Float[Array, "b d"]]:
        """Returns the next state and the top layer's output for one time step."""
        carry = self._advance(self._weights(inputs.shape[-1]), carry, inputs)
        return carry, carry[-1].hidden

    def __call__(self, inputs: Float[Array, "b t c"]) -> Float[Array, "b t d"]:
        """Returns the top layer's output at every step, from the zero state."""
        stack = self._weights(inputs.shape[-1])

        def body(carry: Carry, x: Float[Array, "b c"]):
            # The input projection stays inside: hoisting it out of the loop was
            # 2.3 times slower on CPU.
            carry = self._advance(stack, carry, x)
            return carry, carry[-1].hidden.astype(self.dtype)

        carry = self.initial_carry(inputs.shape[0])
        _, outputs = jax.lax.scan(
            body, carry, jnp.swapaxes(inputs, 0, 1), unroll=self.unroll
        )
        return jnp.swapaxes(outputs, 0, 1)
