"""Dynamic fusion is a gated linear unit of both glimpses."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from robustscanner_jax.models.fusion import DynamicFusion


def random_case(v: int, seed: int):
    """Returns kernel, bias and the two glimpses, `[3, 4, v]`."""
    rng = np.random.default_rng(seed)
    shapes = (2 * v, 2 * v), (2 * v,), (3, 4, v), (3, 4, v)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def fuse(kernel, bias, hybrid, position):
    variables = {"params": {"mix": {"kernel": kernel, "bias": bias}}}
    return DynamicFusion().apply(variables, jnp.asarray(hybrid), jnp.asarray(position))


@given(v=st.integers(1, 3), seed=st.integers(0, 99))
@settings(max_examples=15)
def test_fusion_equals_a_gated_linear_unit(v, seed):
    kernel, bias, hybrid, position = random_case(v, seed)
    mixed = np.concatenate([hybrid, position], axis=-1) @ kernel + bias
    content, gate = mixed[..., :v], mixed[..., v:]  # torch.nn.functional.glu's order
    np.testing.assert_allclose(
        fuse(kernel, bias, hybrid, position),
        content / (1 + np.exp(-gate)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_fusion_treats_every_step_alike_and_alone():
    kernel, bias, hybrid, position = random_case(3, 0)
    whole = fuse(kernel, bias, hybrid, position)
    for step in range(4):
        one = slice(step, step + 1)
        alone = fuse(kernel, bias, hybrid[:, one], position[:, one])
        np.testing.assert_allclose(alone, whole[:, one], rtol=1e-5, atol=1e-6)
