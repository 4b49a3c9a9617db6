"""Schedules at the updates where they turn, Adam against its formula, weight decay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import small_model
from hypothesis import given
from hypothesis import strategies as st

from robustscanner_jax.optim import (
    SCHEDULES,
    decayed,
    former_layouts,
    learning_rates,
    make_optimizer,
    make_schedule,
)
from robustscanner_jax.weights import expected_shapes, flatten, unflatten

PEAK = 1e-3
STEPS = 1000


def rates(name, indices, **changes):
    schedule = make_schedule(name, **(dict(peak=PEAK, steps=STEPS) | changes))
    return [float(schedule(i)) for i in indices]


def test_the_step_schedule_falls_to_a_tenth_at_three_and_at_four_fifths():
    found = rates("step", [0, 599, 600, 799, 800, 999])
    expected = [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_constant_schedule_stays():
    np.testing.assert_allclose(rates("constant", [0, 500, 999]), PEAK, rtol=1e-6)


def test_the_cosine_falls_from_the_peak_to_one_percent():
    found = rates("cosine", [0, 500, 1000])
    np.testing.assert_allclose(found, [1e-3, 0.505e-3, 1e-5], rtol=1e-4)


def test_one_cycle_rises_over_three_tenths_and_ends_near_zero():
    found = rates("one_cycle", [0, 300, 1000])
    np.testing.assert_allclose(found, [PEAK / 25, PEAK, PEAK / 25e4], rtol=1e-3)
    curve = np.array(rates("one_cycle", range(0, 1001, 20)))
    assert (np.diff(curve[:16]) > 0).all() and (np.diff(curve[15:]) < 0).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_warm_up_rises_linearly_from_zero_and_hands_over(name):
    found = rates(name, [0, 50, 99], warmup_steps=100)
    np.testing.assert_allclose(found, [0, PEAK / 2, 0.99 * PEAK], rtol=1e-5)
    # The schedule itself has the updates that are left.
    after = rates(name, [100, 400, 640, 820, 999], warmup_steps=100)
    alone = rates(name, [0, 300, 540, 720, 899], steps=900)
    np.testing.assert_allclose(after, alone, rtol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
@given(st.data())
def test_runs_of_any_length_have_a_rate_for_each_update(name, data):
    steps = data.draw(st.integers(1, 12))
    warmup = data.draw(st.integers(0, steps - 1))
    found = np.array(rates(name, range(steps), steps=steps, warmup_steps=warmup))
    assert np.isfinite(found).all()
    assert (found >= 0).all() and (found <= PEAK * (1 + 1e-6)).all()
    assert found[warmup:].all()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("linear", {}, "unknown schedule 'linear', expected one of"),
        ("step", {"warmup_steps": STEPS}, "0 <= warmup_steps < steps"),
        ("step", {"warmup_steps": -1}, "got -1 and 1000"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(name, changes, message):
    with pytest.raises(ValueError, match=message):
        rates(name, [0], **changes)


def test_weight_decay_is_for_kernels_alone():
    shapes = expected_shapes(small_model()).items()
    tree = unflatten({path: np.zeros(shape) for path, shape in shapes})
    mask = flatten(decayed(tree["params"]))
    names = {True: set(), False: set()}
    for path, chosen in mask.items():
        names[chosen].add(path.rsplit("/", 1)[-1])
    lstm = {f"layer{i}_{part}" for i in (0, 1) for part in ("input", "recurrent")}
    assert names[True] == {"kernel"} | {f"{part}_kernel" for part in lstm}
    assert names[False] == {"bias", "scale", "embedding"} | {
        f"{part}_bias" for part in lstm
    }


PARAMS = {
    "dense": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5, 3.0])},
    "embedding": jnp.array([[4.0]]),
}


def updated(count=1, gradient=1.0, *, clip_norm=0.0, weight_decay=0.0, rate=0.1):
    """Returns the parameters after updates with gradients of `gradient * parameter`."""
    tx = make_optimizer(clip_norm=clip_norm, weight_decay=weight_decay)
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(count):
        grads = jax.tree.map(lambda p: gradient * p, params)
        updates, state = tx.update(grads, state, params, learning_rate=rate)
        params = jax.tree.map(jnp.add, params, updates)
    return params


def adam(p: np.ndarray, count: int, gradient: float, rate=0.1) -> np.ndarray:
    """Kingma and Ba 2015, algorithm 1."""
    m = v = np.zeros_like(p)
    for t in range(1, count + 1):
        g = gradient * p
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g**2
        p = p - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return p


def test_adam_is_the_published_one():
    for found, start in zip(
        jax.tree.leaves(updated(5, 0.7)), jax.tree.leaves(PARAMS), strict=True
    ):
        expected = adam(np.asarray(start, np.float64), 5, 0.7)
        # Five updates of 0.1; 1 - 0.999**t has few digits in float32.
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_update_is_as_large_as_the_rate_it_is_given():
    tx = make_optimizer(clip_norm=0, weight_decay=0)
    updates, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS, learning_rate=0.1)
    # Adam's first update is the rate times the sign of the gradient.
    np.testing.assert_allclose(updates["embedding"], [[-0.1]], rtol=1e-5)
    updates, _ = tx.update(PARAMS, state, PARAMS, learning_rate=0.0)
    np.testing.assert_array_equal(updates["embedding"], 0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rates_of_a_run_are_its_schedule_from_zero_on(name):
    schedule = make_schedule(name, peak=PEAK, steps=STEPS, warmup_steps=3)
    found = learning_rates(schedule, STEPS)
    assert found.dtype == np.float32
    expected = [float(schedule(i)) for i in range(STEPS)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_decay_shrinks_kernels_by_rate_times_decay_and_nothing_else():
    found = updated(gradient=0.0, weight_decay=0.5)
    np.testing.assert_allclose(found["dense"]["kernel"], [[0.95, -1.9]], rtol=1e-6)
    np.testing.assert_array_equal(found["dense"]["bias"], PARAMS["dense"]["bias"])
    np.testing.assert_array_equal(found["embedding"], PARAMS["embedding"])


def test_clipping_scales_long_gradients_and_leaves_short_ones():
    # Of two updates: Adam's first one hides the scale of the gradient.
    def after(clip_norm, first, second):
        tx = make_optimizer(clip_norm=clip_norm, weight_decay=0)
        state, params = tx.init(PARAMS), PARAMS
        for scale in (first, second):
            grads = jax.tree.map(lambda p, s=scale: s * p, PARAMS)
            updates, state = tx.update(grads, state, params, learning_rate=0.1)
            params = jax.tree.map(jnp.add, params, updates)
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])

    norm = float(np.sqrt(1 + 4 + 0.25 + 9 + 16))
    np.testing.assert_allclose(after(norm, 10.0, 0.5), after(0, 1.0, 0.5), rtol=1e-5)
    np.testing.assert_allclose(after(norm, 0.9, 0.5), after(0, 0.9, 0.5), rtol=1e-6)
    assert np.abs(after(0, 10.0, 0.5) - after(0, 1.0, 0.5)).max() > 1e-3


OPTIONS = [(clip, decay) for clip in (0.0, 5.0) for decay in (0.0, 0.1)]


def former(clip_norm, weight_decay, rate=0.1):
    """Returns the optimiser that earlier versions made of these options."""
    parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    if weight_decay:
        parts.append(
            optax.adamw(lambda _: rate, weight_decay=weight_decay, mask=decayed)
        )
    else:
        parts.append(optax.adam(lambda _: rate))
    return optax.chain(*parts)


def after_three_updates(tx):
    tx = optax.with_extra_args_support(tx)
    params, state = PARAMS, tx.init(PARAMS)
    for _ in range(3):
        grads = jax.tree.map(lambda p: 0.7 * p, params)
        updates, state = tx.update(grads, state, params, learning_rate=np.float32(0.1))
        params = jax.tree.map(jnp.add, params, updates)
    return params, state


@pytest.mark.parametrize(("clip_norm", "weight_decay"), OPTIONS)
def test_the_state_has_one_structure_whatever_is_on(clip_norm, weight_decay):
    tx = make_optimizer(clip_norm=clip_norm, weight_decay=weight_decay)
    other = make_optimizer(clip_norm=1.0, weight_decay=0.5)
    one, same = (jax.tree.structure(x.init(PARAMS)) for x in (tx, other))
    assert one == same


@pytest.mark.parametrize(("clip_norm", "weight_decay"), OPTIONS)
def test_the_updates_are_those_of_optax_bit_for_bit(clip_norm, weight_decay):
    tx = make_optimizer(clip_norm=clip_norm, weight_decay=weight_decay)
    found, _ = after_three_updates(tx)
    expected, _ = after_three_updates(former(clip_norm, weight_decay))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(("clip_norm", "weight_decay"), OPTIONS)
def test_a_state_of_earlier_versions_has_the_same_leaves_in_a_known_layout(
    clip_norm, weight_decay
):
    tx = make_optimizer(clip_norm=clip_norm, weight_decay=weight_decay)
    _, now = after_three_updates(tx)
    _, before = after_three_updates(former(clip_norm, weight_decay))
    known = [now, *former_layouts(now)]
    (layout,) = [x for x in known if paths(x) == paths(before)]
    jax.tree.map(
        np.testing.assert_array_equal, jax.tree.leaves(layout), jax.tree.leaves(before)
    )
    assert jax.tree.leaves(layout) == jax.tree.leaves(now)


def paths(tree):
    return [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(tree)]


def test_the_state_of_another_optimiser_has_no_former_layout():
    params = {"kernel": jnp.ones((2, 2))}
    for other in (optax.sgd(0.1, momentum=0.9), optax.adam(0.1)):
        assert former_layouts(other.init(params)) == []
