"""Tall crops are read turned, unsure ones closer, and the surest reading counts."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_fonts import fonts_or_skip
from training import RULE, noise_image, reader

from robustscanner_jax.data.rendered import open_named
from robustscanner_jax.preprocessing import resize_and_pad
from robustscanner_jax.reading import Reading
from robustscanner_jax.recognizer import Recognizer
from robustscanner_jax.views import ANGLES, View, Views, counting, unread

CONFIDENCES = st.lists(st.floats(0, 1), max_size=5)


CLOSENESS = {False: (False,), True: (False, True, True)}


def assert_same_row(row, expected):
    np.testing.assert_array_equal(row[0], expected[0])
    assert row[1] == expected[1]


def reading_of(confidences, end=1.0):
    """Returns a reading whose text ends with probability `end`."""
    probability = math.prod(confidences) * end
    return Reading("a" * len(confidences), probability, tuple(confidences))


BLANK = np.zeros((40, 20, 3), np.uint8), 32
TURNED = [View(BLANK, angle) for angle in ANGLES]
CLOSER = [View(BLANK), View(BLANK, closer=True), View(BLANK, closer=True)]


def counting_of(*readings, views=TURNED):
    return counting(views[: len(readings)], dict(enumerate(readings)))


@given(st.lists(CONFIDENCES, min_size=1, max_size=3))
def test_the_highest_mean_confidence_counts_and_the_first_of_equal_ones(readings):
    won = counting_of(*map(reading_of, readings))
    means = [sum(r) / len(r) if r else 0 for r in readings]
    assert means[won] == max(means)
    assert all(mean < means[won] for mean in means[:won])


def test_a_long_reading_is_not_beaten_for_its_length():
    # As probabilities of the text: 0.9 ** 8 = 0.43 and 0.6.
    readings = map(reading_of, ([0.6], [0.9] * 8, []))
    assert counting_of(*readings) == 1


def test_an_empty_reading_never_beats_a_text():
    assert counting_of(*map(reading_of, ([], [0.01], []))) == 1
    assert counting_of(*map(reading_of, ([], [], []))) == 0


def test_what_failed_counts_as_empty():
    failed = RuntimeError("broken")
    assert counting_of(failed, reading_of([0.01])) == 1
    assert counting_of(failed, failed) == 0
    unsure = reading_of([0.5])
    assert counting_of(unsure, failed, failed, views=CLOSER) == 0
    assert counting_of(unsure, failed, reading_of([0.9]), views=CLOSER) == 2


@pytest.mark.parametrize(
    ("first", "closer", "counts"),
    [
        (0.5, (0.69, 0.2), 0),
        (0.5, (0.71, 0.2), 1),
        (0.5, (0.71, 0.72), 2),
        (0.5, (0.72, 0.71), 1),
        (0.0, (0.0, 0.0), 0),
    ],
)
def test_a_closer_reading_counts_where_it_is_far_more_probable(first, closer, counts):
    readings = [reading_of([p]) for p in (first, *closer)]
    assert counting_of(*readings, views=CLOSER) == counts


def test_letters_at_the_edge_are_not_cut_off_for_a_text_that_is_surer_by_its_length():
    """Means 0.97 and 0.99; whether the short one has ended is unsure."""
    whole, short = reading_of([0.97] * 5, end=0.9), reading_of([0.99] * 4, end=0.98)
    assert 1 < short.confidence / whole.confidence < 1.4
    assert counting_of(whole, short, views=CLOSER) == 0


def test_where_nothing_was_almost_surely_read_no_unsure_text_is_made_up():
    nothing, junk = reading_of([], end=0.89), reading_of([0.6])
    assert counting_of(nothing, junk, junk, views=CLOSER) == 0
    assert counting_of(reading_of([], end=0.4), junk, views=CLOSER) == 1


@given(
    st.integers(8, 60),
    st.integers(8, 60),
    st.none() | st.floats(1, 5, exclude_max=True),
    st.booleans(),
)
def test_only_what_is_taller_than_the_ratio_is_turned(height, width, ratio, closer):
    image = np.zeros((height, width, 3), np.uint8)
    views = Views(rotate_tall=ratio, look_closer=closer).of(image, RULE)
    tall = ratio is not None and height > ratio * width
    expected = [(a, c) for a in ANGLES[: 3 if tall else 1] for c in CLOSENESS[closer]]
    assert [(view.angle, view.closer) for view in views] == expected


def test_the_views_are_the_crop_and_both_its_quarter_turns():
    image = noise_image(1, height=40, width=24)
    views = Views(rotate_tall=1.0).of(image, RULE)
    turns = [
        image,
        cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
        cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    ]
    for view, turn in zip(views, turns, strict=True):
        assert_same_row(view.row, resize_and_pad(turn, RULE))


def test_closer_views_are_without_a_tenth_above_and_below_or_show_the_middle_line():
    image = noise_image(2, height=40, width=80)
    _, around, line = Views(look_closer=True).of(image, RULE)
    assert_same_row(around.row, resize_and_pad(image[4:36, 4:76], RULE))
    assert_same_row(line.row, resize_and_pad(image[7:33], RULE))


def test_closer_views_of_a_tall_crop_are_of_the_line_as_it_reads():
    image = noise_image(3, height=64, width=40)
    views = Views(rotate_tall=1.0, look_closer=True).of(image, RULE)
    for view, same in zip(
        views[3:6],
        Views(look_closer=True).of(
            cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE), RULE
        ),
        strict=True,
    ):
        assert (view.angle, view.closer) == (90, same.closer)
        assert_same_row(view.row, same.row)


@pytest.mark.parametrize(
    ("height", "width", "views"),
    [(1, 1, 1), (2, 9, 1), (2, 11, 2), (3, 3, 2), (6, 6, 3)],
)
def test_a_crop_of_few_pixels_is_looked_at_closer_where_that_cuts_some_off(
    height, width, views
):
    image = np.zeros((height, width, 3), np.uint8)
    assert len(Views(look_closer=True).of(image, RULE)) == views


# The places of the views of a tall crop that may be looked at closer: as it is, turned
# by 90 and by 270 degrees, each with two closer ones behind it.
TALL_VIEWS = Views(rotate_tall=1.0, look_closer=True).of(
    np.zeros((40, 20, 3), np.uint8), RULE
)


def test_all_angles_are_read_before_any_is_looked_at_closer():
    assert unread(TALL_VIEWS, {}) == [0, 3, 6]
    assert unread(TALL_VIEWS, {3: reading_of([0.1])}) == [0, 6]


@given(st.permutations([0.2, 0.5, 0.7]))
def test_only_the_surest_angle_is_looked_at_closer(confidences):
    readings = {3 * i: reading_of([c]) for i, c in enumerate(confidences)}
    first = 3 * confidences.index(0.7) + 1
    assert unread(TALL_VIEWS, readings) == [first, first + 1]
    readings[first] = reading_of([0.99])
    assert unread(TALL_VIEWS, readings) == [first + 1]
    readings[first + 1] = reading_of([0.1])
    assert unread(TALL_VIEWS, readings) == []
    assert counting(TALL_VIEWS, readings) == first


@pytest.mark.parametrize(
    ("reading", "closer"),
    [
        (reading_of([0.95] * 2), []),  # 0.9025
        (reading_of([0.9]), []),  # the bound itself
        (reading_of([0.95] * 3), [1, 2]),  # 0.857: the text as a whole
        (reading_of([1.0] * 3, end=0.89), [1, 2]),  # unsure whether more follows
        (reading_of([]), []),  # surely nothing
        (reading_of([], end=0.5), [1, 2]),
        (RuntimeError("broken"), []),  # it would fail again
    ],
)
def test_what_is_surely_read_is_not_looked_at_closer(reading, closer):
    views = Views(look_closer=True).of(noise_image(5), RULE)
    assert unread(views, {0: reading}) == closer


def test_without_closer_views_an_unsure_reading_stands():
    assert unread(TALL_VIEWS[:1], {0: reading_of([0.1])}) == []


@pytest.mark.parametrize("ratio", [0.99, 0, -1, math.nan, math.inf])
def test_a_ratio_that_would_turn_wide_crops_or_none_is_refused(ratio):
    with pytest.raises(ValueError, match="rotate_tall: expected at least 1"):
        reader().read([noise_image(0)], rotate_tall=ratio)


@pytest.mark.parametrize("closer", ["yes", 0.5, 1, None])
def test_looking_closer_is_true_or_false(closer):
    with pytest.raises(ValueError, match="look_closer: expected True or False"):
        reader().read([noise_image(0)], look_closer=closer)


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (View(BLANK), ""),
        (View(BLANK, 270), "turned by 270°"),
        (View(BLANK, closer=True), "closer"),
        (View(BLANK, 90, closer=True), "turned by 90°, closer"),
    ],
)
def test_a_view_says_what_is_special_of_it(view, expected):
    assert view.description == expected


def test_wide_crops_are_read_as_without_rotation():
    images = [noise_image(seed, width=24 + 8 * (seed % 4)) for seed in range(12)]
    assert reader().read(images, rotate_tall=1.0) == reader().read(images)


def test_a_tall_crop_gets_the_surest_of_its_three_readings():
    tall = [noise_image(seed, height=48, width=24) for seed in range(12)]
    found = reader().read(tall, rotate_tall=1.0)
    turns = [reader().read([np.rot90(i, k).copy() for i in tall]) for k in (0, 1, 3)]
    won = []
    for reading, *readings in zip(found, *turns, strict=True):
        k = counting_of(*readings)
        assert reading.text == readings[k].text
        won.append(k)
    assert set(won) == {0, 1, 2}


def test_an_unsure_crop_gets_the_surest_of_its_readings():
    images = [noise_image(seed, height=40, width=80) for seed in range(16)]
    as_it_is = reader().read(images)
    found = reader().read(images, look_closer=True)
    parts = [
        reader().read([image[cut] for image in images])
        for cut in (np.s_[4:36, 4:76], np.s_[7:33])
    ]
    won = []
    for reading, first, *closer in zip(found, as_it_is, *parts, strict=True):
        readings = [first, *closer] if first.confidence < 0.9 else [first]
        k = counting_of(*readings, views=CLOSER)
        assert reading.text == readings[k].text
        won.append(k)
    assert set(won) == {0, 1, 2}


@pytest.mark.slow
def test_words_between_other_lines_are_read_closer():
    fonts_or_skip()
    source = open_named("rendered:loose?seed=7&count=64&split=heldout")
    images = [source[i]["image"][..., ::-1] for i in range(64)]
    labels = [source[i]["text"] for i in range(64)]
    recognizer = Recognizer.load(batch_size=64)

    def right(readings):
        return sum(
            r.text.lower() == t.lower() for r, t in zip(readings, labels, strict=True)
        )

    closer = right(recognizer.read(images, look_closer=True))
    assert closer > right(recognizer.read(images)) + 3


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
