"""Weights for another charset: what is known stays bit for bit, the rest is new."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CHARSET, MAX_LEN, eloquent, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from training import RULE, noise_image

from robustscanner_jax.charset import Charset
from robustscanner_jax.preprocessing import resize_and_pad
from robustscanner_jax.recognizer import Recognizer
from robustscanner_jax.transfer import transfer
from robustscanner_jax.weights import Weights

CARD = {"step": 0}


def weights():
    return Weights(small_model(), eloquent(), CHARSET, RULE, CARD)


def model_of(charset, **changes):
    return small_model().clone(
        num_classes=charset.num_classes,
        num_tokens=charset.num_tokens,
        start_id=charset.end_id,
        end_id=charset.end_id,
        pad_id=charset.pad_id,
        **changes,
    )


def fresh_of(model):
    """Returns variables that no weights file holds: every value is 7."""

    def create():
        image = jnp.zeros((1, RULE.height, RULE.max_width, 3))
        tokens = jnp.zeros((1, model.max_len), jnp.int32)
        width = jnp.full(1, RULE.max_width, jnp.int32)
        return model.init(jax.random.key(0), image, width, tokens, train=False)

    return jax.tree.map(lambda x: np.full(x.shape, 7, x.dtype), jax.eval_shape(create))


charsets = st.text("abcdefgh013XY", min_size=1).map(
    lambda text: Charset.of("".join(dict.fromkeys(text)))
)


def test_how_the_device_computes_is_no_difference_of_the_network():
    how = dict(unroll=4, training_factors=jnp.bfloat16, train_backbone=False)
    model = model_of(CHARSET, **how)
    found = transfer(weights(), model, CHARSET, fresh_of(model))
    assert found.kept == CHARSET.characters and not found.added


@settings(max_examples=25, deadline=None)
@given(charsets)
def test_each_token_keeps_its_rows_or_is_as_initialised(charset):
    model = model_of(charset)
    found, kept, added, dropped = transfer(weights(), model, charset, fresh_of(model))
    old, new = eloquent()["params"], found["params"]
    ids = {c: i for i, c in enumerate(CHARSET.characters)}
    for i, c in enumerate(charset.characters):
        rows = (
            new["hybrid"]["embedding"][i],
            new["classifier"]["kernel"][:, i],
            new["classifier"]["bias"][i],
        )
        if c in ids:
            expected = (
                old["hybrid"]["embedding"][ids[c]],
                old["classifier"]["kernel"][:, ids[c]],
                old["classifier"]["bias"][ids[c]],
            )
            for ours, theirs in zip(rows, expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
        else:
            assert all((row == 7).all() for row in rows)
    for name in ("end_id", "pad_id", "unknown_id"):
        np.testing.assert_array_equal(
            new["hybrid"]["embedding"][getattr(charset, name)],
            old["hybrid"]["embedding"][getattr(CHARSET, name)],
        )
    assert set(kept) | set(added) == set(charset.characters)
    assert set(kept) | set(dropped) == set(CHARSET.characters)
    assert not set(added) & set(CHARSET.characters)


def test_all_that_has_no_rows_is_copied_and_the_weights_are_left_alone():
    charset = Charset.of("abxyz")
    model = model_of(charset)
    before = jax.tree.map(np.copy, eloquent())
    found = transfer(weights(), model, charset, fresh_of(model)).variables
    for tree in (found, before):
        del tree["params"]["hybrid"]["embedding"], tree["params"]["classifier"]
    jax.tree.map(np.testing.assert_array_equal, found, before)
    del before
    jax.tree.map(np.testing.assert_array_equal, weights().variables, eloquent())


def test_the_same_charset_gives_the_same_variables():
    model = small_model()
    found, kept, added, dropped = transfer(weights(), model, CHARSET, fresh_of(model))
    jax.tree.map(np.testing.assert_array_equal, found, eloquent())
    assert (kept, added, dropped) == (CHARSET.characters, "", "")


@pytest.mark.parametrize("max_len", [MAX_LEN - 2, MAX_LEN + 3])
def test_steps_that_both_networks_have_keep_their_rows(max_len):
    model = small_model().clone(max_len=max_len)
    found = transfer(weights(), model, CHARSET, fresh_of(model)).variables
    rows = found["params"]["position"]["embedding"]
    old = eloquent()["params"]["position"]["embedding"]
    same = min(max_len, MAX_LEN) + 1
    assert len(rows) == max_len + 1
    np.testing.assert_array_equal(rows[:same], old[:same])
    assert (rows[same:] == 7).all()


def test_a_permuted_charset_reads_the_same_texts():
    charset = Charset.of(CHARSET.characters[::-1])
    model = model_of(charset)
    found = transfer(weights(), model, charset, fresh_of(model)).variables
    moved = dataclasses.replace(
        weights(), model=model, charset=charset, variables=found
    )
    rows = [resize_and_pad(noise_image(seed), RULE) for seed in range(8)]
    image = np.stack([row for row, _ in rows])
    width = np.array([width for _, width in rows])
    texts = [
        [r.text for r in reader.to_readings(reader.decode(image, width), 8)]
        for reader in (Recognizer(w, batch_size=8) for w in (weights(), moved))
    ]
    assert texts[0] == texts[1] and len(set(texts[0])) > 1


def without_class_of_padding():
    characters = len(CHARSET.characters)
    specials = dict(end_id=characters, unknown_id=characters + 1, pad_id=characters + 2)
    return dataclasses.replace(CHARSET, num_classes=characters + 2, **specials)


def test_a_classifier_without_padding_keeps_its_characters():
    charset = without_class_of_padding()
    characters = len(charset.characters)
    model = model_of(charset)
    found = transfer(weights(), model, charset, fresh_of(model)).variables
    bias, old = found["params"]["classifier"]["bias"], eloquent()["params"]
    old = old["classifier"]["bias"]
    assert bias.shape == (characters + 2,)
    np.testing.assert_array_equal(bias[:characters], old[:characters])
    assert bias[charset.end_id] == old[CHARSET.end_id]
    assert bias[charset.unknown_id] == old[CHARSET.unknown_id]


def test_padding_that_the_weights_do_not_predict_is_as_initialised():
    charset, model = without_class_of_padding(), small_model()
    params = eloquent()["params"]
    old = params["classifier"]
    classifier = {"kernel": old["kernel"][:, :-1], "bias": old["bias"][:-1]}
    variables = eloquent() | {"params": params | {"classifier": classifier}}
    given = Weights(model_of(charset), variables, charset, RULE, CARD)
    found = transfer(given, model, CHARSET, fresh_of(model)).variables
    bias = found["params"]["classifier"]["bias"]
    assert bias[CHARSET.pad_id] == 7
    assert bias[CHARSET.end_id] == old["bias"][charset.end_id]


def test_another_network_is_refused_with_what_differs():
    model = small_model().clone(decoder_width=48, mask_rounding="nearest")
    with pytest.raises(ValueError, match="decoder_width 32, here 48; mask_rounding"):
        transfer(weights(), model, CHARSET, {})
