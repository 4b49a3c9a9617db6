"""One update: it learns, it leaves out what is not finite, filler has no say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    CHARSET,
    HEIGHT,
    MAX_LEN,
    WIDTH,
    apply,
    distance,
    eloquent,
    small_model,
)
from training import RULE, gradients_of

from robustscanner_jax.data.pipeline import DEVICE_KEYS, fake_batch
from robustscanner_jax.losses import token_cross_entropy
from robustscanner_jax.models.normalise import normalise
from robustscanner_jax.optim import make_optimizer
from robustscanner_jax.steps import (
    TrainState,
    average_decay,
    create_state,
    train_step,
)

MODEL = small_model()
RATE = 1e-3
TX = make_optimizer(clip_norm=5.0, weight_decay=0.0)
EMA = 0.9


def compiled(model, tx):
    """Returns the step as `(state, batch)`; nothing is donated: tests look back."""
    return jax.jit(
        functools.partial(
            train_step,
            learning_rate=RATE,
            model=model,
            tx=tx,
            mean=RULE.mean,
            scale=RULE.scale,
            ema_decay=EMA,
        )
    )


step = compiled(MODEL, TX)


def batch_of(size=8, seed=0, fillers=()):
    batch = fake_batch(size, charset=CHARSET, rule=RULE, max_len=MAX_LEN, seed=seed)
    for row in fillers:
        batch["tokens"][row], batch["weight"][row] = CHARSET.pad_id, 0
        batch["image"][row] = 0
    return {name: jnp.asarray(batch[name]) for name in DEVICE_KEYS}


@functools.cache
def fresh() -> TrainState:
    """Returns a state as training begins, but from weights that cost no compilation."""
    variables = eloquent()
    return TrainState(
        step=jnp.int32(0),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=TX.init(variables["params"]),
        ema_params=jax.tree.map(jnp.copy, variables["params"]),
        skipped_in_row=jnp.int32(0),
    )


@functools.cache
def learned():
    """Returns the states and metrics along twelve updates on one batch."""
    states, metrics = [fresh()], []
    for _ in range(12):
        state, found = step(states[-1], batch_of())
        states.append(state)
        metrics.append({name: float(value) for name, value in found.items()})
    return states, metrics


def assert_same_bits(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


def kept(state):
    return state.params, state.opt_state, state.batch_stats, state.ema_params


def test_some_updates_on_one_batch_lower_the_loss():
    _, metrics = learned()
    losses = [m["loss_sum"] / m["tokens"] for m in metrics]
    assert losses[-1] < 0.8 * losses[0]
    # In the beginning nothing is known: as good as drawing one of the classes.
    assert 0.5 < losses[0] / np.log(MODEL.num_classes) < 2


def test_each_update_is_counted_and_changes_all_that_training_changes():
    states, metrics = learned()
    assert [int(s.step) for s in states] == list(range(13))
    assert all(m["skipped"] == 0 for m in metrics)
    for before, after in zip(kept(states[0]), kept(states[1]), strict=True):
        changed = jax.tree.map(lambda x, y: bool((x != y).any()), before, after)
        assert any(jax.tree.leaves(changed))


def test_the_sums_are_those_of_the_batch():
    _, metrics = learned()
    tokens = np.asarray(batch_of()["tokens"])
    assert metrics[0]["tokens"] == (tokens[:, 1:] != CHARSET.pad_id).sum()
    assert metrics[0]["rows"] == 8
    assert 0 <= metrics[0]["correct"] <= metrics[0]["tokens"]
    assert metrics[-1]["correct"] > metrics[0]["correct"]


def test_the_first_update_moves_no_parameter_further_than_the_learning_rate():
    states, _ = learned()
    moved = jax.tree.map(
        lambda x, y: float(jnp.abs(x - y).max()), states[0].params, states[1].params
    )
    # float32 of a parameter of 10 has steps of 1e-6.
    assert max(jax.tree.leaves(moved)) == pytest.approx(RATE, rel=2e-3)


def test_the_average_follows_its_formula():
    states, _ = learned()
    expected = jax.tree.map(np.asarray, states[0].params)
    for n, state in enumerate(states[1:]):
        decay = min(EMA, (1 + n) / (10 + n))
        expected = jax.tree.map(
            lambda old, new, decay=decay: decay * old + (1 - decay) * np.asarray(new),
            expected,
            state.params,
        )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, states[-1].ema_params, expected)
    assert states[-1].variables["params"] is states[-1].ema_params


def test_a_long_average_forgets_the_random_start_within_twenty_updates():
    left = 1.0  # share of the start
    for n in range(20):
        left *= float(average_decay(jnp.int32(n), 0.9999))
    assert left < 1e-5
    assert float(average_decay(jnp.int32(10**6), 0.9999)) == pytest.approx(0.9999)


def test_without_an_average_evaluation_uses_the_parameters():
    state = fresh().replace(ema_params={})
    assert state.variables["params"] is state.params


def test_the_padding_row_of_an_embedding_is_never_trained():
    states, _ = learned()
    for state in (states[1], states[-1]):
        rows = state.params["hybrid"]["embedding"]
        before = states[0].params["hybrid"]["embedding"]
        np.testing.assert_array_equal(rows[MODEL.pad_id], before[MODEL.pad_id])
        used = rows[: len(CHARSET.characters)]
        assert (used != before[: len(CHARSET.characters)]).any()


def poisoned(state, path=("classifier", "kernel"), value=jnp.nan):
    """Returns the state with one parameter that ruins loss or gradient."""
    params = jax.tree.map(jnp.copy, state.params)
    leaf = params
    for name in path[:-1]:
        leaf = leaf[name]
    leaf[path[-1]] = leaf[path[-1]].at[(0,) * leaf[path[-1]].ndim].set(value)
    return state.replace(params=params)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("classifier", "kernel"), jnp.nan),
        (("classifier", "bias"), jnp.inf),
        (("hybrid", "embedding"), jnp.inf),
    ],
)
def test_an_update_that_is_not_finite_changes_nothing(path, value):
    good = learned()[0][3]
    before = poisoned(good, path, value)
    batch = batch_of()
    # The embedding of the first character matters where it occurs.
    batch["tokens"] = batch["tokens"].at[:, 1].set(0)
    after, metrics = step(before, batch)
    assert_same_bits(kept(before), kept(after))
    # Sums of the good updates stay numbers; that there was one shows in the last two.
    assert {name: float(x) for name, x in metrics.items()} == {
        "loss_sum": 0, "tokens": 0, "correct": 0, "grad_norm": 0,
        "rows": 8, "skipped": 1,
    }  # fmt: skip
    assert int(after.skipped_in_row) == 1 and int(after.step) == int(before.step) + 1


def test_updates_left_out_in_a_row_are_counted_until_a_good_one():
    good = learned()[0][3]
    state = poisoned(good)
    for expected in (1, 2, 3):
        state, _ = step(state, batch_of(seed=expected))
        assert int(state.skipped_in_row) == expected
    state, metrics = step(state.replace(params=good.params), batch_of())
    assert int(state.skipped_in_row) == 0 and int(metrics["skipped"]) == 0


def test_a_run_that_left_out_updates_goes_on_as_if_they_had_not_been():
    states, _ = learned()
    state = states[3]
    bad, _ = step(poisoned(state), batch_of())
    resumed = bad.replace(params=state.params)
    after, _ = step(resumed, batch_of())
    assert_same_bits(kept(after), kept(states[4]))
    assert int(after.step) == int(states[4].step) + 1


def test_filler_rows_count_in_no_sum():
    fillers = (2, 5, 7)
    batch = batch_of(fillers=fillers)
    _, metrics = step(fresh(), batch)
    rows = [row for row in range(8) if row not in fillers]
    variables = {"params": fresh().params, "batch_stats": fresh().batch_stats}
    image = normalise(batch["image"], mean=RULE.mean, scale=RULE.scale)
    inputs = batch["tokens"][:, :-1]
    logits, _ = apply(MODEL, variables, image, batch["width"], inputs, train=True)
    targets = batch["tokens"][:, 1:]
    good = np.array(rows)
    loss_sum, tokens = token_cross_entropy(
        logits[good], targets[good], pad_id=CHARSET.pad_id
    )
    assert float(metrics["loss_sum"]) == pytest.approx(float(loss_sum), rel=1e-5)
    assert float(metrics["tokens"]) == float(tokens)
    assert float(metrics["rows"]) == len(rows)
    hits = (jnp.argmax(logits, -1) == targets)[good] & (targets[good] != CHARSET.pad_id)
    assert int(metrics["correct"]) == int(hits.sum())


def test_the_gradient_is_that_of_the_mean_over_the_tokens_that_count():
    """Seen in Adam's first moment: its first update hides the scale."""
    batch = batch_of(fillers=(2, 5, 7))
    state, metrics = step(fresh(), batch)
    variables = {"params": fresh().params, "batch_stats": fresh().batch_stats}
    image = normalise(batch["image"], mean=RULE.mean, scale=RULE.scale)
    inputs, targets = batch["tokens"][:, :-1], batch["tokens"][:, 1:]
    logits, _ = apply(MODEL, variables, image, batch["width"], inputs, train=True)
    errors = jax.nn.softmax(logits) - jax.nn.one_hot(targets, MODEL.num_classes)
    counted = targets != CHARSET.pad_id
    expected = errors[counted].sum(0) / counted.sum()
    clipped = jnp.minimum(1, 5.0 / metrics["grad_norm"])
    (moment,) = [
        leaf
        for path, leaf in jax.tree.leaves_with_path(state.opt_state)
        if jax.tree_util.keystr(path).endswith(".mu['classifier']['bias']")
    ]
    np.testing.assert_allclose(moment, 0.1 * clipped * expected, atol=1e-6)
    assert float(jnp.abs(moment).max()) > 1e-4


def test_a_batch_of_filler_alone_changes_nothing_and_is_counted():
    """Not even with momentum, nor what batch norm knows of the data."""
    before, _ = step(fresh(), batch_of())
    kept = jax.tree.map(np.array, before)
    state, metrics = step(before, batch_of(fillers=range(8)))
    assert float(metrics["loss_sum"]) == float(metrics["tokens"]) == 0
    assert float(metrics["rows"]) == float(metrics["grad_norm"]) == 0
    assert int(metrics["skipped"]) == int(state.skipped_in_row) == 1
    for name in ("params", "batch_stats", "opt_state", "ema_params"):
        assert_same_bits(getattr(state, name), getattr(kept, name))


@pytest.mark.parametrize("ema", [False, True])
def test_a_new_state_has_the_shapes_that_the_step_returns(ema, key):
    create = functools.partial(
        create_state, key, model=MODEL, tx=TX, image_size=(HEIGHT, WIDTH), ema=ema
    )
    found = jax.eval_shape(create)
    expected = fresh() if ema else fresh().replace(ema_params={})
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(
        jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)


def test_a_new_state_depends_on_the_key_alone_and_its_average_starts_equal(key):
    create = jax.jit(
        functools.partial(
            create_state, model=MODEL, tx=TX, image_size=(HEIGHT, WIDTH), ema=True
        )
    )
    state, again = create(key), create(key)
    other = create(jax.random.key(1))
    assert_same_bits(kept(state), kept(again))
    assert_same_bits(state.params, state.ema_params)
    kernel = "classifier", "kernel"
    first, second = (s.params[kernel[0]][kernel[1]] for s in (state, other))
    assert (first != second).any()
    assert not state.params["hybrid"]["embedding"][MODEL.pad_id].any()


def test_a_frozen_backbone_stays_and_the_rest_learns():
    def update_of(model):
        tx = make_optimizer(clip_norm=5.0, weight_decay=0.5)
        before = fresh().replace(opt_state=tx.init(fresh().params))
        # Momentum as of updates that trained everything.
        moments = jax.tree.map(lambda x: jnp.ones_like(x), before.opt_state)
        after, _ = compiled(model, tx)(before.replace(opt_state=moments), batch_of())
        return before, after

    before, after = update_of(MODEL.clone(train_backbone=False))
    same = functools.partial(jax.tree.map, np.testing.assert_array_equal)
    same(after.params["backbone"], before.params["backbone"])
    same(after.batch_stats["backbone"], before.batch_stats["backbone"])
    for name in set(before.params) - {"backbone"}:
        for old, new in zip(
            *map(jax.tree.leaves, (before.params[name], after.params[name])),
            strict=True,
        ):
            assert (old != new).any(), name


def test_a_frozen_backbone_computes_as_in_use():
    frozen = MODEL.clone(train_backbone=False)
    batch = batch_of()
    inputs = (
        normalise(batch["image"], mean=RULE.mean, scale=RULE.scale),
        batch["width"],
        batch["tokens"][:, :-1],
    )
    found, _ = apply(frozen, eloquent(), *inputs, train=True)
    expected, _ = apply(MODEL, eloquent(), *inputs, train=False)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_products_tap_by_tap_give_the_gradients_of_xla():
    assert _rounding(training_factors=jnp.float32) < 1e-5


def test_products_of_bfloat16_round_less_than_accelerators_do():
    # This network multiplies any rounding: it is compared with itself.
    rounded = _rounding(training_factors=jnp.bfloat16)
    assert 0 < rounded < _rounding(dtype=jnp.bfloat16)


def _rounding(**how) -> float:
    """Returns how far gradients are from those of XLA, against the norm of these."""
    exact, got = (
        gradients_of(model, eloquent(), batch_of(6), accumulate=2)[0]  # of three rows
        for model in (MODEL, MODEL.clone(**how))
    )
    return distance(exact, got)
