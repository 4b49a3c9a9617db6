"""How the network is computed on the device at hand."""

import jax
import jax.numpy as jnp
import pytest

from robustscanner_jax import compute
from robustscanner_jax.compute import compute_dtype, for_device
from robustscanner_jax.models.robustscanner import RobustScanner


@pytest.mark.parametrize(
    ("backend", "dtype", "unroll"),
    [("cpu", "float32", False), ("gpu", "bfloat16", True), ("tpu", "bfloat16", True)],
)
def test_accelerators_compute_in_bfloat16_with_written_out_loops(
    monkeypatch, backend, dtype, unroll
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    model = for_device(RobustScanner(width="nano"), "auto")
    assert model.dtype == jnp.dtype(dtype)
    assert (model.unroll > 1) is unroll
    assert (model.training_factors is None) is unroll  # what XLA does well there


@pytest.mark.parametrize(
    ("tiles", "dtype", "factors"),
    [
        (True, "auto", "bfloat16"),
        (False, "auto", "float32"),
        (True, "float32", "float32"),  # as asked
        (True, "bfloat16", "bfloat16"),
        (False, "bfloat16", "float32"),
    ],
)
def test_a_cpu_trains_with_rounded_factors_where_that_is_faster_and_allowed(
    monkeypatch, tiles, dtype, factors
):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(compute, "_has_bfloat16_tiles", lambda: tiles)
    model = for_device(RobustScanner(width="nano"), dtype)
    assert model.training_factors == jnp.dtype(factors)


def test_a_named_dtype_is_taken_on_any_device():
    assert compute_dtype("bfloat16") == jnp.bfloat16
    assert compute_dtype("float32") == jnp.float32


@pytest.mark.parametrize("dtype", ["bf16", "float64", "int32", "", None])
def test_another_dtype_is_refused_with_the_ones_there_are(dtype):
    with pytest.raises(ValueError, match="one of auto, float32, bfloat16, got"):
        for_device(RobustScanner(width="nano"), dtype)


def test_several_devices_on_cpu_keep_the_gradients_of_xla(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    assert for_device(RobustScanner(width="nano"), "auto").training_factors is None


@pytest.mark.parametrize(
    ("version", "dtype", "flags", "warned"),
    [
        ((0, 10, 2), "bfloat16", "", False),
        ((0, 11, 2), "bfloat16", "", True),
        ((0, 11, 2), "auto", "", False),
        ((0, 11, 2), "bfloat16", "--xla_cpu_experimental_ynn_fusion_type=", False),
    ],
)
def test_bfloat16_on_a_cpu_is_warned_of_where_xla_makes_nan_of_it(
    monkeypatch, caplog, version, dtype, flags, warned
):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(jax, "__version_info__", version)
    monkeypatch.setenv("XLA_FLAGS", flags)
    for_device(RobustScanner(width="nano"), dtype)
    assert ("computes bfloat16 networks on CPU as NaN" in caplog.text) is warned
