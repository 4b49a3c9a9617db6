"""Eight devices compute what one does, and a batch is split over them in order."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import CHARSET, HEIGHT, MAX_LEN, WIDTH, small_model
from training import RULE

from robustscanner_jax import partition
from robustscanner_jax.data.pipeline import DEVICE_KEYS, fake_batch
from robustscanner_jax.steps import TrainState, create_state, train_step

MODEL = small_model()
# Not Adam: where the true gradient is zero, as of a bias before batch norm, it makes a
# step of the whole learning rate out of rounding. Small steps: large ones cross the
# edges of ReLU and pooling, where no two orders of summation agree.
TX = optax.chain(optax.clip_by_global_norm(5.0), optax.sgd(2e-3, momentum=0.9))


@functools.cache
def fresh() -> TrainState:
    create = functools.partial(
        create_state,
        jax.random.key(0),
        model=MODEL,
        tx=TX,
        image_size=(HEIGHT, WIDTH),
        ema=False,
    )
    mesh = partition.make_mesh(jax.devices()[:1])
    return jax.device_get(partition.place_state(create, mesh))


@functools.cache
def trained(devices: int, steps: int = 4):
    mesh = partition.make_mesh(jax.devices()[:devices])
    bound = functools.partial(
        train_step, model=MODEL, tx=TX, mean=RULE.mean, scale=RULE.scale, ema_decay=0
    )
    step = partition.jit_step(bound, mesh)
    state, found = jax.device_put(fresh(), partition.replicated(mesh)), []
    for seed in range(steps):
        batch = fake_batch(8, charset=CHARSET, rule=RULE, max_len=MAX_LEN, seed=seed)
        batch["tokens"][seed] = CHARSET.pad_id  # a filler row, each time elsewhere
        batch["weight"][seed] = 0
        batch = partition.put_batch(batch, DEVICE_KEYS, mesh)
        state, metrics = step(state, batch, np.float32(0))
        found.append(jax.device_get(metrics))
    return state, found


def test_eight_devices_give_the_parameters_of_one():
    (one, _), (eight, _) = trained(1), trained(8)
    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
    jax.tree.map(close, eight.params, one.params)
    # Batch norm saw the global batch: a mean over each device's row alone differs.
    jax.tree.map(close, eight.batch_stats, one.batch_stats)
    moved = jax.tree.map(
        lambda x, y: np.abs(x - y).max(), jax.device_get(one.params), fresh().params
    )
    assert max(jax.tree.leaves(moved)) > 1e-3


def test_eight_devices_give_the_sums_of_one():
    (_, one), (_, eight) = trained(1), trained(8)
    for alone, shared in zip(one, eight, strict=True):
        assert alone.keys() == shared.keys()
        for name in alone:
            np.testing.assert_allclose(
                shared[name], alone[name], rtol=1e-5, err_msg=name
            )
        assert alone["rows"] == 7


def test_the_state_is_a_copy_on_every_device():
    state, _ = trained(8)
    for leaf in jax.tree.leaves(state):
        assert len(leaf.sharding.device_set) == 8
        copies = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        for copy in copies:
            assert copy.shape == leaf.shape
            np.testing.assert_array_equal(copy, copies[0])


def test_a_batch_is_split_in_order_and_only_its_wanted_keys_travel():
    mesh = partition.make_mesh()
    batch = {"width": np.arange(16, dtype=np.int32), "id": np.array(["x"] * 16)}
    found = partition.put_batch(batch, ["width"], mesh)
    assert found.keys() == {"width"}
    shards = sorted(found["width"].addressable_shards, key=lambda s: s.device.id)
    for i, shard in enumerate(shards):
        assert np.asarray(shard.data).tolist() == [2 * i, 2 * i + 1]


def test_a_mesh_holds_all_devices_unless_some_are_named():
    assert partition.make_mesh().size == jax.device_count()
    assert (
        partition.make_mesh(jax.devices()[2:5]).devices.tolist() == jax.devices()[2:5]
    )


def test_a_batch_that_devices_cannot_share_is_refused_with_advice():
    mesh = partition.make_mesh(jax.devices()[:8])
    for size in (8, 64):
        partition.check_batch_size(size, mesh)
    with pytest.raises(ValueError) as caught:
        partition.check_batch_size(12, mesh)
    assert str(caught.value) == (
        "batch size 12 cannot be split over 8 devices: choose a multiple of 8"
    )


def test_a_state_is_created_on_the_devices():
    mesh = partition.make_mesh()
    state = partition.place_state(lambda: {"a": jnp.arange(3)}, mesh)
    assert state["a"].sharding.is_equivalent_to(partition.replicated(mesh), 1)
    assert state["a"].tolist() == [0, 1, 2]


def test_shapes_for_restoring_carry_the_sharding_of_the_state():
    mesh = partition.make_mesh()
    shapes = {"a": jax.ShapeDtypeStruct((3,), jnp.float32)}
    found = partition.replicated_shapes(shapes, mesh)["a"]
    assert (found.shape, found.dtype) == ((3,), jnp.float32)
    assert found.sharding == partition.replicated(mesh)


def test_the_state_is_donated_and_the_batch_is_not():
    mesh = partition.make_mesh(jax.devices()[:1])
    step = partition.jit_step(lambda s, b, _: (s + b["x"].sum(), {"m": s}), mesh)
    state = jax.device_put(jnp.float32(1), partition.replicated(mesh))
    batch = partition.put_batch({"x": np.ones(4, np.float32)}, ["x"], mesh)
    after, metrics = step(state, batch, np.float32(0))
    assert float(after) == 5 and float(metrics["m"]) == 1
    assert state.is_deleted() and not batch["x"].is_deleted()
