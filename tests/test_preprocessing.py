"""Scaling and padding by the published rule."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustscanner_jax.preprocessing import (
    Preprocessing,
    content_width,
    resize_and_pad,
)

MMOCR = Preprocessing()
PADDLE = Preprocessing(clamp_first=False, mean=127.5, scale=127.5)


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        *[(1, 48), (48, 48), (50, 48), (52, 52), (54, 56), (58, 56), (62, 64)],
        *[(157, 156), (158, 160), (160, 160), (161, 160), (10_000, 160)],
    ],
)
@pytest.mark.parametrize("rule", [MMOCR, PADDLE], ids=["MMOCR", "Paddle"])
def test_widths_are_clamped_and_rounded_half_to_even(width, expected, rule):
    assert content_width(48, width, rule) == expected


@given(
    height=st.integers(1, 500),
    aspect=st.floats(1 / 20, 20),
    clamp_first=st.booleans(),
)
def test_a_width_is_a_multiple_of_four_within_bounds_near_the_true_aspect(
    height, aspect, clamp_first
):
    width = max(1, round(height * aspect))
    rule = Preprocessing(clamp_first=clamp_first)
    got = content_width(height, width, rule)
    assert got % 4 == 0
    assert 48 <= got <= 160
    # Rounding up to a pixel, then by half a column at most.
    exact = min(max(48 * width / height, 48), 160)
    assert exact - 2 <= got < exact + 3


@given(height=st.integers(1, 500), width=st.integers(1, 5000))
def test_the_width_equals_the_arithmetic_of_mmocr_and_of_paddle(height, width):
    scaled = math.ceil(48 / height * width)
    mmocr = int(round(min(max(scaled, 48), 160) / 4) * 4)
    assert content_width(height, width, MMOCR) == mmocr
    paddle = round(scaled / 4) * 4
    paddle = 160 if paddle > 160 else max(paddle, 48)
    assert content_width(height, width, PADDLE) == paddle


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 200),
    order=st.sampled_from(["BGR", "RGB"]),
    seed=st.integers(0, 99),
)
def test_the_content_is_the_scaled_image_and_the_rest_is_zero(
    height, width, order, seed
):
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 256, (height, width, 3), np.uint8)  # no zero
    padded, content = resize_and_pad(image, Preprocessing(channel_order=order))
    assert padded.shape == (48, 160, 3)
    assert padded.dtype == np.uint8
    assert content == content_width(height, width, MMOCR)
    assert padded[:, :content].all()
    assert not padded[:, content:].any()


def test_an_image_of_the_right_size_keeps_its_pixels():
    image = np.random.default_rng(0).integers(0, 256, (48, 100, 3), np.uint8)
    before = image.copy()
    padded, content = resize_and_pad(image, MMOCR)
    assert content == 100
    np.testing.assert_array_equal(padded[:, :100], image)
    np.testing.assert_array_equal(image, before)


@given(height=st.integers(1, 100), width=st.integers(1, 300))
def test_a_flat_colour_stays_that_colour_in_the_order_asked_for(height, width):
    blue_green_red = np.array([10, 20, 30], np.uint8)
    image = np.tile(blue_green_red, (height, width, 1))
    for order, colour in (("BGR", [10, 20, 30]), ("RGB", [30, 20, 10])):
        padded, content = resize_and_pad(image, Preprocessing(channel_order=order))
        np.testing.assert_array_equal(
            padded[:, :content], np.broadcast_to(colour, (48, content, 3))
        )


@given(height=st.sampled_from([12, 16, 24, 32]), seed=st.integers(0, 99))
def test_scaling_is_bilinear_between_the_centres_of_the_pixels(height, seed):
    row = np.random.default_rng(seed).integers(0, 256, (1, 40, 3), np.uint8)
    image = np.repeat(row, height, axis=0)  # changes from column to column alone
    padded, content = resize_and_pad(image, MMOCR)
    centres = (np.arange(content) + 0.5) * 40 / content - 0.5
    expected = np.stack(
        [np.interp(centres, np.arange(40), row[0, :, c]) for c in range(3)], axis=-1
    )
    assert np.abs(padded[:, :content].astype(float) - expected).max() <= 1.0


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 5), np.uint8), r"got shape \(4, 5\)"),
        (np.zeros((4, 5, 4), np.uint8), r"got shape \(4, 5, 4\)"),
        (np.zeros((4, 5, 1), np.uint8), r"got shape \(4, 5, 1\)"),
        (np.zeros((0, 5, 3), np.uint8), r"got shape \(0, 5, 3\)"),
        (np.zeros((4, 0, 3), np.uint8), r"got shape \(4, 0, 3\)"),
        (np.zeros((4, 5, 3), np.float32), "expected uint8 pixels, got float32"),
        (np.zeros((4, 5, 3), np.uint16), "expected uint8 pixels, got uint16"),
    ],
)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        resize_and_pad(image, MMOCR)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(height=0), "height >= 1"),
        (dict(min_width=0), "0 < min_width <= max_width"),
        (dict(min_width=164), "0 < min_width <= max_width"),
        (dict(min_width=50), "multiples of 4 pixels, got 50 and 160"),
        (dict(max_width=150), "multiples of 4 pixels, got 48 and 150"),
        (dict(channel_order="GRAY"), "BGR or RGB, got 'GRAY'"),
    ],
)
def test_a_rule_that_cannot_work_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**arguments)


@pytest.mark.reference
@pytest.mark.parametrize("name", ["mmocr", "paddle"])
def test_pixels_equal_those_of_the_published_implementations(name, shared):
    golden = np.load(shared(f"reference/{name}_preprocess_golden.npz"))
    rule = {"mmocr": MMOCR, "paddle": PADDLE}[name]
    raw = [key for key in golden.files if key.startswith("raw_")]
    assert raw
    for key in raw:
        index = int(key.removeprefix("raw_"))
        padded, content = resize_and_pad(golden[key], rule)
        assert content == golden["resized_width"][index]
        expected = golden["normalised"][index].transpose(1, 2, 0)
        got = (padded.astype(np.float32) - rule.mean) / rule.scale
        np.testing.assert_allclose(got, expected, atol=1e-6)
