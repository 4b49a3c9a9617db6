"""Tall crops are read turned as well, and the surest reading counts."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_fonts import fonts_or_skip
from training import RULE, noise_image, reader

from robustscanner_jax import rotation
from robustscanner_jax.data.rendered import open_named
from robustscanner_jax.preprocessing import resize_and_pad
from robustscanner_jax.recognizer import Recognizer

CONFIDENCES = st.lists(st.floats(0, 1), max_size=5)


@given(st.lists(CONFIDENCES, min_size=1, max_size=3))
def test_the_highest_mean_confidence_wins_and_the_first_of_equal_ones(readings):
    won = rotation.best(readings)
    means = [sum(r) / len(r) if r else 0 for r in readings]
    assert means[won] == max(means)
    assert all(mean < means[won] for mean in means[:won])


def test_a_long_reading_is_not_beaten_for_its_length():
    # As probabilities of the text: 0.9 ** 8 = 0.43 and 0.6.
    assert rotation.best([[0.6], [0.9] * 8, []]) == 1


def test_an_empty_reading_never_beats_a_text():
    assert rotation.best([[], [0.01], []]) == 1
    assert rotation.best([[], [], []]) == 0


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.none() | st.floats(1, 5, exclude_max=True),
)
def test_only_what_is_taller_than_the_ratio_is_turned(height, width, ratio):
    image = np.zeros((height, width, 3), np.uint8)
    rows = rotation.crop_rows(image, RULE, ratio)
    assert len(rows) == (3 if ratio is not None and height > ratio * width else 1)


def test_the_rows_are_the_crop_and_both_its_quarter_turns():
    image = noise_image(1, height=40, width=24)
    rows = rotation.crop_rows(image, RULE, 1.0)
    turns = [
        image,
        cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
        cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    ]
    for (pixels, width), turn in zip(rows, turns, strict=True):
        expected, expected_width = resize_and_pad(turn, RULE)
        np.testing.assert_array_equal(pixels, expected)
        assert width == expected_width


@pytest.mark.parametrize("ratio", [0.99, 0, -1, math.nan, math.inf])
def test_a_ratio_that_would_turn_wide_crops_or_none_is_refused(ratio):
    with pytest.raises(ValueError, match="rotate_tall: expected at least 1"):
        reader().read([noise_image(0)], rotate_tall=ratio)


def test_wide_crops_are_read_as_without_rotation():
    images = [noise_image(seed, width=24 + 8 * (seed % 4)) for seed in range(12)]
    assert reader().read(images, rotate_tall=1.0) == reader().read(images)


def test_a_tall_crop_gets_the_surest_of_its_three_readings():
    tall = [noise_image(seed, height=48, width=24) for seed in range(12)]
    found = reader().read(tall, rotate_tall=1.0)
    turns = [reader().read([np.rot90(i, k).copy() for i in tall]) for k in (0, 1, 3)]
    won = []
    for reading, *readings in zip(found, *turns, strict=True):
        k = rotation.best([r.character_confidences for r in readings])
        assert reading.text == readings[k].text
        won.append(k)
    assert set(won) == {0, 1, 2}


@pytest.mark.slow
def test_words_turned_by_90_degrees_are_read_as_if_they_were_not():
    fonts_or_skip()
    source = open_named("rendered:easy?seed=5&count=24&split=heldout")
    upright = [source[i]["image"][..., ::-1] for i in range(24)]
    upright = [image for image in upright if image.shape[1] > 1.2 * image.shape[0]]
    assert len(upright) > 15
    recognizer = Recognizer.load(batch_size=24)
    texts = [r.text for r in recognizer.read(upright)]
    for quarter in (1, 3):
        turned = [np.rot90(image, quarter).copy() for image in upright]
        found = recognizer.read(turned, rotate_tall=1.0)
        assert [r.text for r in found] == texts
        # What the rule is for: as it is, such a crop is hardly ever read.
        lying = [r.text for r in recognizer.read(turned)]
        assert sum(map(str.__eq__, lying, texts)) < len(texts) / 4
