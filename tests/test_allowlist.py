"""Weights that read some characters alone."""

import jax
import numpy as np
import pytest
from helpers import BATCH, CHARSET, logits_of, random_images, text_tokens
from hypothesis import given, settings
from hypothesis import strategies as st
from training import reading_weights

from robustscanner_jax.allowlist import restrict
from robustscanner_jax.decoding import greedy
from robustscanner_jax.weights import load_weights, save_weights

alphabets = st.sets(st.sampled_from(CHARSET.characters), min_size=1).map("".join)


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def classes_of(characters):
    return [*CHARSET.encode(characters), CHARSET.end_id]


@settings(max_examples=20, deadline=None)
@given(alphabets)
def test_texts_hold_nothing_but_what_is_allowed(characters):
    weights = restrict(reading_weights(), characters)
    image, width = random_images(0, BATCH)
    ids = np.asarray(greedy(weights.model, weights.variables, image, width).ids)
    texts = {CHARSET.to_text(row) for row in ids.tolist()}
    assert len(texts) > 1 and set("".join(texts)) <= set(characters)


@settings(max_examples=20, deadline=None)
@given(alphabets)
def test_probabilities_are_those_among_what_is_allowed(characters):
    weights = reading_weights()
    image, width = random_images(1, BATCH)
    inputs = image, width, text_tokens(1, BATCH, weights.model)
    free = softmax(logits_of(weights.model, weights.variables, *inputs))
    bound = restrict(weights, characters)
    found = softmax(logits_of(bound.model, bound.variables, *inputs))
    allowed = classes_of(characters)
    expected = np.zeros_like(free)
    expected[..., allowed] = free[..., allowed]
    expected /= expected.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_weights_it_was_made_of_stay_as_they_are():
    weights = reading_weights()
    before = jax.tree.map(np.array, weights.variables)
    restrict(weights, "ab")
    jax.tree.map(np.testing.assert_array_equal, weights.variables, before)
    assert "allowlist" not in weights.card


def test_a_file_of_them_reads_the_same_characters(tmp_path):
    path = tmp_path / "ab.safetensors"
    save_weights(path, restrict(reading_weights(), "bab"), dtype="float16")
    found = load_weights(path)
    assert found.card["allowlist"] == "ab"
    image, width = random_images(2, BATCH)
    ids = np.asarray(greedy(found.model, found.variables, image, width).ids)
    assert set("".join(map(CHARSET.to_text, ids.tolist()))) == set("ab")


@pytest.mark.parametrize(
    ("characters", "got"), [("", "'none'"), ("aXbYX", "'XY'"), ("ab ", "' '")]
)
def test_characters_that_the_charset_lacks_are_named(characters, got):
    message = f"expected characters of 'abcdefgh', which .*, got {got}"
    with pytest.raises(ValueError, match=message):
        restrict(reading_weights(), characters)


def test_what_is_allowed_may_shrink_and_never_grow():
    letters = restrict(reading_weights(), "abc")
    assert restrict(letters, "ab").card["allowlist"] == "ab"
    with pytest.raises(ValueError, match=r"expected characters of 'abc', .* got 'd'"):
        restrict(letters, "ad")
