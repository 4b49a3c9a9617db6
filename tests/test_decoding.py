"""Greedy decoding against the slow way: everything again for every character."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    BATCH,
    MAX_LEN,
    eloquent,
    logits_of,
    random_images,
    small_model,
)

from robustscanner_jax.decoding import greedy

MODEL = small_model()
TOLERANCE = 1e-5  # of a probability


def mmocr_0x(variables):
    """Returns the classifier for unknown, end, pad at 8, 9, 10, and none for pad."""
    classifier = jax.tree.map(
        lambda leaf: leaf[..., np.array([0, 1, 2, 3, 4, 5, 6, 7, 10, 8])],
        variables["params"]["classifier"],
    )
    return variables | {"params": variables["params"] | {"classifier": classifier}}


# A model over the parameters of `eloquent`, and how it rearranges them.
VARIANTS = {
    "MMOCR 1.x": (MODEL, lambda variables: variables),
    "MMOCR 0.x": (
        small_model(
            num_classes=10, start_id=9, end_id=9, pad_id=10, mask_rounding="nearest"
        ),
        mmocr_0x,
    ),
    "start is not end": (small_model(start_id=10), lambda variables: variables),
}


class Slow(NamedTuple):
    ids: np.ndarray  # [b, t]
    probabilities: np.ndarray  # [b, t]
    tied: np.ndarray  # [b], whether two tokens were equally likely at some step


def slow_greedy(model, variables, image, width) -> Slow:
    """Reads all steps, each from the pixels and the characters before it."""
    tokens = np.full((len(image), model.max_len), model.pad_id, np.int32)
    tokens[:, 0] = model.start_id
    ids, probabilities = [], []
    tied = np.zeros(len(image), bool)
    for step in range(model.max_len):
        logits = logits_of(model, variables, image, width, jnp.asarray(tokens))
        shifted = np.exp(logits[:, step].astype(np.float64))
        probability = shifted / shifted.sum(axis=-1, keepdims=True)
        second, first = np.sort(probability, axis=-1)[:, -2:].T
        ids.append(probability.argmax(axis=-1))
        probabilities.append(first)
        tied |= first - second < 2 * TOLERANCE
        if step + 1 < model.max_len:
            tokens[:, step + 1] = ids[-1]
    return Slow(np.stack(ids, axis=1), np.stack(probabilities, axis=1), tied)


def num_characters(ids: np.ndarray, end_id: int) -> np.ndarray:
    """Returns the index of the first end token of each row, or the number of steps."""
    ended = np.cumsum(ids == end_id, axis=1) > 0
    return (~ended).sum(axis=1)


def is_after_end(ids: np.ndarray, end_id: int) -> np.ndarray:
    """Marks what comes after the first end token of a row."""
    return np.arange(ids.shape[1]) > num_characters(ids, end_id)[:, None]


def check_against_full_recompute(
    model, variables, image_seed: int, b: int, *, all_steps: bool
) -> np.ndarray:
    """Compares both ways of decoding; returns the lengths of the texts."""
    image, width = random_images(image_seed, b)
    slow = slow_greedy(model, variables, image, width)
    # Where two tokens are as likely as each other, rounding takes either.
    rows = ~slow.tied
    assert slow.tied.sum() <= max(1, b // 100)
    ids, probabilities = slow.ids[rows], slow.probabilities[rows]

    got = greedy(model, variables, image, width, all_steps=all_steps)
    if not all_steps:
        after = is_after_end(ids, model.end_id)
        ids = np.where(after, model.pad_id, ids)
        probabilities = np.where(after, 1.0, probabilities)
    np.testing.assert_array_equal(got.ids[rows], ids)
    np.testing.assert_allclose(
        got.probabilities[rows], probabilities, rtol=0, atol=TOLERANCE
    )
    return num_characters(ids, model.end_id)


def assert_texts_end_everywhere(lengths: np.ndarray):
    counts = np.bincount(lengths, minlength=MAX_LEN + 1)
    assert (counts > 0).all(), f"texts of length 0 to {MAX_LEN}: {counts}"
    assert counts.max() < 0.8 * counts.sum(), counts


@pytest.mark.parametrize("name", VARIANTS)
def test_carried_state_equals_full_recompute_up_to_the_end(name):
    model, rearrange = VARIANTS[name]
    lengths = [
        check_against_full_recompute(
            model, rearrange(eloquent(seed)), seed, BATCH, all_steps=False
        )
        for seed in (0, 1)
    ]
    assert_texts_end_everywhere(np.concatenate(lengths))


def test_carried_state_equals_full_recompute_on_all_steps():
    check_against_full_recompute(MODEL, eloquent(), 0, BATCH, all_steps=True)


@pytest.mark.slow
@pytest.mark.parametrize("all_steps", [False, True])
def test_carried_state_equals_full_recompute_on_ten_thousand_images(all_steps):
    lengths = [
        check_against_full_recompute(
            MODEL, eloquent(seed), 100 + seed, 512, all_steps=all_steps
        )
        for seed in range(20)
    ]
    assert_texts_end_everywhere(np.concatenate(lengths))


def test_early_exit_equals_all_steps_up_to_the_end_of_each_row():
    image, width = random_images(0, BATCH)
    every = greedy(MODEL, eloquent(), image, width, all_steps=True)
    early = greedy(MODEL, eloquent(), image, width)
    after = is_after_end(np.asarray(every.ids), MODEL.end_id)
    assert (np.asarray(every.ids)[after] != MODEL.pad_id).any()
    np.testing.assert_array_equal(early.ids, np.where(after, MODEL.pad_id, every.ids))
    np.testing.assert_allclose(
        early.probabilities, np.where(after, 1.0, every.probabilities), atol=1e-6
    )


@pytest.mark.slow
def test_carried_state_equals_a_sequence_that_really_grows():
    # `slow_greedy` pads its characters to one length, to compile once.
    variables = eloquent()
    image, width = random_images(5, 16)
    tokens = jnp.full((16, 1), MODEL.start_id)
    for _ in range(MAX_LEN):
        logits = logits_of(MODEL, variables, image, width, tokens)
        newest = logits[:, -1].argmax(axis=-1)
        tokens = jnp.concatenate([tokens, newest[:, None]], axis=1)
    every = greedy(MODEL, variables, image, width, all_steps=True)
    np.testing.assert_array_equal(every.ids, tokens[:, 1:])


def test_after_its_end_a_row_holds_padding_of_probability_one():
    image, width = random_images(2, BATCH)
    decoded = greedy(MODEL, eloquent(), image, width)
    ids, probabilities = np.asarray(decoded.ids), np.asarray(decoded.probabilities)
    after = is_after_end(ids, MODEL.end_id)
    assert after.any()
    assert (ids[after] == MODEL.pad_id).all()
    assert (probabilities[after] == 1.0).all()
    assert ((0 < probabilities) & (probabilities <= 1)).all()
    assert (probabilities[~after] < 1.0).all()
    assert ids.dtype == np.int32
    assert probabilities.dtype == np.float32


def test_a_prediction_depends_neither_on_its_slot_nor_on_its_neighbours():
    image, width = random_images(3, BATCH)
    together = greedy(MODEL, eloquent(), image, width)
    order = np.random.default_rng(0).permutation(BATCH)
    shuffled = greedy(MODEL, eloquent(), image[order], width[order])
    np.testing.assert_array_equal(shuffled.ids, together.ids[order])
    np.testing.assert_allclose(
        shuffled.probabilities, together.probabilities[order], atol=1e-6
    )
    others, other_width = random_images(4, BATCH)
    others, other_width = others.at[7].set(image[0]), other_width.at[7].set(width[0])
    mixed = greedy(MODEL, eloquent(), others, other_width)
    np.testing.assert_array_equal(mixed.ids[7], together.ids[0])
    np.testing.assert_allclose(
        mixed.probabilities[7], together.probabilities[0], atol=1e-6
    )


def test_an_image_alone_reads_as_it_does_in_a_batch():
    image, width = random_images(3, BATCH)
    together = greedy(MODEL, eloquent(), image, width)
    lengths = num_characters(np.asarray(together.ids), MODEL.end_id)
    # Alone, a short text stops the loop; in the batch the others keep it running.
    for row in (int(lengths.argmin()), int(lengths.argmax())):
        one = slice(row, row + 1)
        alone = greedy(MODEL, eloquent(), image[one], width[one])
        np.testing.assert_array_equal(alone.ids, together.ids[one])
        np.testing.assert_allclose(
            alone.probabilities, together.probabilities[one], atol=1e-5
        )


def steps_run(model, variables, image, width) -> int:
    """Returns how often the decoder ran, counted on the host."""
    calls = []

    class Counting(type(model)):
        def step(self, *arguments):
            jax.debug.callback(lambda: calls.append(1))
            return super().step(*arguments)

    fields = {name: getattr(model, name) for name in FIELDS}
    jax.block_until_ready(greedy(Counting(**fields), variables, image, width))
    jax.effects_barrier()
    return len(calls)


FIELDS = [name for name in MODEL.__dataclass_fields__ if name not in ("parent", "name")]


def test_decoding_stops_when_every_row_has_ended():
    variables = eloquent()
    image, width = random_images(3, BATCH)
    lengths = num_characters(
        np.asarray(greedy(MODEL, variables, image, width).ids), MODEL.end_id
    )
    short = np.resize(np.flatnonzero(lengths <= 2), 8)
    expected = lengths[short].max() + 1  # the end token is a step, too
    assert steps_run(MODEL, variables, image[short], width[short]) == expected < MAX_LEN


def test_the_product_of_a_row_is_over_the_characters_and_the_end():
    image, width = random_images(2, BATCH)
    ids, probabilities, _ = slow_greedy(MODEL, eloquent(), image, width)
    expected = [
        np.prod(row[: length + 1])
        for row, length in zip(
            probabilities, num_characters(ids, MODEL.end_id), strict=True
        )
    ]
    got = np.asarray(greedy(MODEL, eloquent(), image, width).probabilities)
    np.testing.assert_allclose(got.prod(axis=1), expected, rtol=1e-4)


def test_all_steps_are_run_where_every_row_has_ended():
    image, width = random_images(3, BATCH)
    every = greedy(MODEL, eloquent(), image, width, all_steps=True)
    lengths = num_characters(np.asarray(every.ids), MODEL.end_id)
    short = np.resize(np.flatnonzero(lengths <= 2), 8)
    alone = greedy(MODEL, eloquent(), image[short], width[short], all_steps=True)
    np.testing.assert_array_equal(alone.ids, every.ids[short])


def test_probabilities_of_a_bfloat16_network_are_float32():
    model = small_model(dtype=jnp.bfloat16)
    image, width = random_images(2, BATCH)
    decoded = jax.eval_shape(lambda: greedy(model, eloquent(), image, width))
    assert decoded.probabilities.dtype == np.float32
