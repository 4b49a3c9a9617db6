"""What a config becomes: every option arrives where it acts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CHARSET, MAX_LEN
from training import RULE, tiny_config, word_source

from robustscanner_jax import best_weights, flops, partition, train, train_setup
from robustscanner_jax.checkpoint import Checkpoints, DataPosition
from robustscanner_jax.data.pipeline import training_batches
from robustscanner_jax.data.transforms import Prepare
from robustscanner_jax.optim import make_optimizer, make_schedule
from robustscanner_jax.train_log import Clock


def test_order_and_rows_are_those_of_the_config(labels, tmp_path):
    config = tiny_config(
        labels,
        seed=3,
        data__train=(str(labels), str(labels)),
        data__weights=(1.0, 3.0),
        data__augment=0.7,
        data__augment_without=("invert", "compress"),
        data__variants=2,
    )
    sources = [word_source(name="one"), word_source(name="other")]
    setup = train_setup.set_up(config, tmp_path)
    expected = training_batches(
        sources,
        (1.0, 3.0),
        prepare=Prepare(CHARSET, RULE, MAX_LEN, 0.7, 2, ("invert", "compress")),
        batch_size=8,
        seed=3,
        num_workers=0,
        start=2,
    )
    pairs = zip(train._batches(setup, sources, start=2), expected, strict=False)
    for found, batch in itertools.islice(pairs, 3):
        np.testing.assert_equal(found, batch)


def test_an_update_is_computed_as_the_config_says(labels, tmp_path, monkeypatch):
    config = tiny_config(
        labels,
        data__batch_size=16,
        preprocessing__mean=120.0,
        preprocessing__scale=60.0,
        train__ema_decay=0.7,
        train__accumulate=2,
    )
    monkeypatch.setattr(partition, "jit_step", lambda step, mesh: step.keywords)
    setup = train_setup.set_up(config, tmp_path)
    given = train._compile_step(setup)
    options = {name: given[name] for name in ("mean", "scale", "ema_decay")}
    assert options == {"mean": 120.0, "scale": 60.0, "ema_decay": 0.7}
    assert given["accumulate"] == 2 and given["tx"] is setup.tx


def test_rates_clipping_and_decay_are_those_of_the_config(labels, tmp_path):
    config = tiny_config(
        labels,
        train__schedule="cosine",
        train__peak_lr=0.1,
        train__warmup_steps=2,
        train__clip_norm=0.5,
        train__weight_decay=0.3,
    )
    setup = train_setup.set_up(config, tmp_path)
    schedule = make_schedule("cosine", peak=0.1, steps=6, warmup_steps=2)
    expected = [float(schedule(i)) for i in range(6)]
    np.testing.assert_allclose(setup.rates, expected, rtol=1e-4)

    def after_three(tx):
        params = start = {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])}
        state = tx.init(params)
        for scale in (9.0, 0.1, 1.0):
            grads = jax.tree.map(lambda p, s=scale: s * p, start)
            updates, state = tx.update(grads, state, params, learning_rate=0.1)
            params = jax.tree.map(jnp.add, params, updates)
        return params

    tx = make_optimizer(clip_norm=0.5, weight_decay=0.3)
    jax.tree.map(np.testing.assert_array_equal, after_three(setup.tx), after_three(tx))


def test_initial_weights_are_drawn_from_the_seed(labels, tmp_path, monkeypatch):
    setup = train_setup.set_up(tiny_config(labels, seed=3), tmp_path)
    monkeypatch.setattr(partition, "place_state", lambda create, mesh: create)
    checkpoints = Checkpoints(tmp_path, keep=1)
    create, position = train_setup.start(setup, checkpoints)
    checkpoints.close()
    assert create.args == (jax.random.key(3),)
    assert position == DataPosition(batches=0, examples={})


def test_the_peak_is_of_all_devices_and_counts_the_backward_pass(
    labels, tmp_path, monkeypatch
):
    setup = train_setup.set_up(tiny_config(labels), tmp_path)
    monkeypatch.setattr(flops, "peak_flops", lambda device: 3e12)
    monkeypatch.setattr(train, "RunLog", lambda *_, **options: options)
    size = RULE.height, RULE.max_width
    expected = 8 * 1e12 / flops.forward_flops(setup.model, size)
    assert train._open_log(setup, Clock(), 4)["peak_images"] == pytest.approx(expected)


@pytest.mark.parametrize(("asked", "given"), [(-1, 6), (0, 0), (3, 3)])
def test_workers_are_as_many_as_asked_or_one_a_core_but_one(
    labels, tmp_path, monkeypatch, asked, given
):
    monkeypatch.setattr(train, "allowed_cores", lambda: 7)
    monkeypatch.setattr(train, "training_batches", lambda *_, **options: options)
    config = tiny_config(labels, data__num_workers=asked)
    setup = train_setup.set_up(config, tmp_path)
    assert train._batches(setup, [], start=0)["num_workers"] == given


@pytest.mark.parametrize("frozen", [True, False])
def test_the_backbone_is_frozen_as_the_config_says(labels, tmp_path, frozen):
    config = tiny_config(labels, train__freeze_backbone=frozen)
    assert train_setup.set_up(config, tmp_path).model.train_backbone == (not frozen)


def test_a_random_backbone_is_not_frozen(labels, tmp_path):
    config = tiny_config(labels, train__freeze_backbone=True)
    with pytest.raises(ValueError, match=r"freeze_backbone: .*train\.init_weights"):
        train.run(config, tmp_path)


def test_a_run_without_checkpoints_does_not_keep_the_best_of_another(labels, tmp_path):
    (tmp_path / best_weights.FILE).touch()
    setup = train_setup.set_up(tiny_config(labels), tmp_path)
    checkpoints = Checkpoints(tmp_path, keep=1)
    train_setup.start(setup, checkpoints)
    checkpoints.close()
    assert not (tmp_path / best_weights.FILE).exists()
