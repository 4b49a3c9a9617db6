"""Distortions: valid pixels for any crop, the same for the same generator."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustscanner_jax.data.augment import (
    DISTORTION_NAMES,
    DISTORTIONS,
    MAX_HEIGHT,
    add_noise,
    augment,
    jitter_colour,
    lower_resolution,
)

CROPS = st.tuples(
    st.integers(1, 150), st.integers(1, 300), st.integers(0, 2**32 - 1)
)  # height, width, seed


def crop(height: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(CROPS)
def test_any_crop_stays_an_image(case):
    height, _, seed = case
    image = crop(*case)
    before = image.copy()
    result = augment(generator(seed), image, 1.0)
    assert result.dtype == np.uint8 and result.ndim == 3 and result.shape[2] == 3
    assert min(result.shape) >= 1
    if result is not image:  # the sides move by a few hundredths of the height
        assert abs(result.shape[0] - min(height, MAX_HEIGHT)) <= 0.2 * height
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("distort", [d for d, _ in DISTORTIONS])
@given(case=CROPS)
def test_each_distortion_alone_keeps_shape_and_type_valid(distort, case):
    height, width, seed = case
    if min(height, width) < 8:
        return
    result = distort(generator(seed), crop(height, width))
    assert result.dtype == np.uint8 and result.ndim == 3 and result.shape[2] == 3
    assert np.abs(np.array(result.shape[:2]) - (height, width)).max() <= 0.2 * height


@pytest.mark.parametrize("distort", [d for d, _ in DISTORTIONS])
def test_each_distortion_changes_a_crop(distort):
    image = crop(32, 80)
    result = distort(generator(), image)
    assert result.shape != image.shape or (result != image).any()


@pytest.mark.parametrize("distort", [add_noise, jitter_colour])
@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_stay_dark_and_light(distort, value):
    image = np.full((32, 80, 3), value, np.uint8)
    for seed in range(20):
        moved = distort(generator(seed), image).astype(int) - value
        assert np.abs(moved).max() < 128


@pytest.mark.parametrize("height", [8, 10])
def test_text_of_ten_rows_keeps_its_resolution(height):
    image = crop(height, 40)
    for seed in range(20):
        np.testing.assert_array_equal(lower_resolution(generator(seed), image), image)


@given(CROPS)
def test_the_same_generator_gives_the_same_pixels(case):
    first, second = (augment(generator(case[2]), crop(*case), 1.0) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_different_generators_give_different_pixels():
    image = crop(32, 80)
    results = {augment(generator(seed), image, 1.0).tobytes() for seed in range(20)}
    assert len(results) > 15


@given(CROPS)
def test_strength_zero_is_the_identity(case):
    image = crop(*case)
    assert augment(generator(case[2]), image, 0.0) is image


@pytest.mark.parametrize("size", [(7, 100), (100, 7), (1, 1)])
def test_tiny_crops_are_left_alone(size):
    image = crop(*size)
    for seed in range(20):
        assert augment(generator(seed), image, 1.0) is image


def test_tall_crops_are_shrunk_where_they_are_distorted_and_only_there():
    image = crop(400, 1000)
    results = [augment(generator(seed), image, 1.0) for seed in range(40)]
    distorted = [result for result in results if result is not image]
    assert distorted and len(distorted) < len(results)
    for result in distorted:
        assert result.shape[0] <= 1.2 * MAX_HEIGHT
        assert result.shape[1] == pytest.approx(1000 * MAX_HEIGHT / 400, rel=0.1)


def test_a_distortion_is_as_frequent_as_its_probability_times_the_strength():
    image = crop(16, 40)
    share = 1 - np.prod([1 - 0.5 * probability for _, probability in DISTORTIONS])
    changed = np.mean(
        [augment(generator(seed), image, 0.5) is not image for seed in range(500)]
    )
    assert changed == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("left_out", DISTORTION_NAMES)
def test_a_distortion_that_is_left_out_never_comes(left_out, monkeypatch):
    called = []

    def marked(distort):
        def note(rng, image):
            called.append(distort.__name__)
            return image

        return functools.wraps(distort)(note), 1.0

    everything = [marked(distort) for distort, _ in DISTORTIONS]
    monkeypatch.setattr("robustscanner_jax.data.augment.DISTORTIONS", everything)
    augment(generator(0), crop(32, 64), 1.0, (left_out,))
    assert called == [name for name in DISTORTION_NAMES if name != left_out]
