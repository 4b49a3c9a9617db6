"""Words cut out of pages: shapes, order of points, and what is refused."""

import json
import math
import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from robustscanner_jax import Region, regions
from robustscanner_jax.image_like import to_bgr
from robustscanner_jax.regions import RegionError, as_points, cut_out, parse_regions


def smooth_image(height, width, seed=0):
    """Returns a picture whose pixels differ little from their neighbours'."""
    noise = np.random.default_rng(seed).integers(0, 256, (5, 9, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def difference(a, b):
    return np.abs(a.astype(float) - b.astype(float))


PAGE = smooth_image(80, 120)
BOX = [[10, 20], [70, 20], [70, 45], [10, 45]]


@given(st.tuples(*[st.integers(0, 79)] * 4))
def test_an_upright_box_is_its_pixels(corners):
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    assume(x1 > x0 and y1 > y0)
    quad = [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]
    for region in (quad, [[x0, y0], [x1, y1]], [x0, y0, x1, y1], np.array(quad)):
        np.testing.assert_array_equal(cut_out(PAGE, region), PAGE[y0:y1, x0:x1])


@given(st.lists(st.floats(-9, 9), min_size=8, max_size=8))
def test_a_quadrilateral_is_seen_from_straight_ahead(offsets):
    word = smooth_image(40, 120, seed=1)
    flat = np.array([[0, 0], [120, 0], [120, 40], [0, 40]], np.float32)
    seen = flat + np.array((40, 30)) + np.array(offsets, np.float32).reshape(4, 2)
    matrix = cv2.getPerspectiveTransform(flat - 0.5, seen.astype(np.float32) - 0.5)
    page = cv2.warpPerspective(
        word, matrix, (200, 100), borderMode=cv2.BORDER_REPLICATE
    )
    crop = cut_out(page, seen.tolist())
    again = cv2.resize(crop, (120, 40))
    assert difference(again, word)[2:-2, 2:-2].mean() < 3


def test_a_quadrilateral_is_as_long_as_its_longer_sides():
    crop = cut_out(PAGE, [[10, 10], [90, 18], [80, 50], [14, 40]])
    top, bottom = math.hypot(80, 8), math.hypot(66, 10)
    left, right = math.hypot(4, 30), math.hypot(10, 32)
    assert crop.shape == (round(max(left, right)), round(max(top, bottom)), 3)


def test_the_first_point_is_the_top_left_of_the_text():
    straight = cut_out(PAGE, BOX)
    for turns in range(4):
        turned = [*BOX[turns:], *BOX[:turns]]
        expected = np.rot90(straight, turns)
        assert cut_out(PAGE, turned).shape == expected.shape
        assert difference(cut_out(PAGE, turned), expected).max() <= 1


def test_anticlockwise_corners_do_not_mirror_the_text():
    quad = [[10, 20], [70, 25], [72, 50], [8, 44]]
    backwards = [quad[0], *quad[:0:-1]]
    np.testing.assert_array_equal(cut_out(PAGE, quad), cut_out(PAGE, backwards))


@given(st.integers(3, 8), st.floats(0.3, 2.0))
def test_a_bent_word_is_unrolled(points, angle):
    word = smooth_image(30, 140, seed=2)
    radius = 140 / angle
    # The picture of the word on an arc: where each pixel of the page lies in it.
    y, x = np.mgrid[:240, :240].astype(np.float32)
    centre = 120.0, 40.0 + radius + 30
    of_arc = np.arctan2(x - centre[0], centre[1] - y)
    across = np.hypot(x - centre[0], centre[1] - y)
    map_x = (of_arc / angle + 0.5) * 140
    map_y = radius + 15 - across
    page = cv2.remap(
        word,
        (map_x - 0.5).astype(np.float32),
        (map_y - 0.5).astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    turns = (np.linspace(0, 1, 4 * points) - 0.5) * angle

    def line(r):
        return np.stack(
            [centre[0] + r * np.sin(turns), centre[1] - r * np.cos(turns)], axis=1
        )

    outline = np.concatenate([line(radius + 15), line(radius - 15)[::-1]]) + 0.5
    crop = cut_out(page, outline)
    assert abs(crop.shape[0] - 30) <= 1 and abs(crop.shape[1] - 140) <= 20
    again = cv2.resize(crop, (140, 30))
    assert difference(again, word)[3:-3, 3:-3].mean() < 6


def test_points_along_straight_sides_change_nothing():
    more = [[10, 20], [40, 20], [70, 20], [70, 45], [40, 45], [10, 45]]
    assert difference(cut_out(PAGE, more), cut_out(PAGE, BOX)).max() <= 1


@given(st.tuples(*[st.floats(-200, 400)] * 8))
def test_any_region_is_a_crop_or_one_sentence(numbers):
    try:
        crop = cut_out(PAGE, numbers)
    except ValueError as error:
        assert str(error).startswith("region: ") and "\n" not in str(error)
        return
    assert min(crop.shape[:2]) >= 1 and crop.shape[2] == 3
    assert crop.shape[0] * crop.shape[1] <= 2.1 * PAGE.shape[0] * PAGE.shape[1] + 400


def test_what_lies_beyond_the_page_is_left_out_or_repeats_its_edge():
    np.testing.assert_array_equal(cut_out(PAGE, [-5, -9, 30, 40]), PAGE[:40, :30])
    np.testing.assert_array_equal(cut_out(PAGE, [99.6, 70, 130, 200]), PAGE[70:, 100:])
    crop = cut_out(PAGE, [[-20, 30], [20, 30.5], [20, 50], [-20, 50]])
    for column in range(18):
        assert difference(crop[:, column], PAGE[30:50, 0]).max() < 20


def nested(depth):
    region = 1
    for _ in range(depth):
        region = [region]
    return region


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ([1, 2, 3], "expected two corners of a box, four corners, or along"),
        ([[1, 2]], r"expected two corners of a box, .* got \[\[1, 2\]\]"),
        ([[0, 0], [9, 0], [9, 9]], "expected two corners of a box"),
        ("word", "expected two corners of a box, .* got 'word'"),
        (None, "expected two corners of a box, .* got None"),
        (["1", "1", "9", "9"], "expected two corners of a box"),
        ([[False, False], [True, True]], "expected two corners of a box"),
        ([0, 0, 10**400, 9], "expected two corners of a box"),
        ([0, 0, 10**12, 9], "expected pixels below 1,000,000, got"),
        (nested(990), r"expected two corners of a box, .* got \[\["),
        ([[1, 2], [3]], "expected two corners of a box"),
        ([[1, 2, 3], [4, 5, 6]], "expected two corners of a box"),
        ({"x": 1}, "expected two corners of a box"),
        ([0, 0, math.nan, 9], "expected pixels below 1,000,000, got"),
        ([0, 0, 1e300, 9], "expected pixels below 1,000,000, got"),
        ([9, 9, 3, 20], "expected a box from top left to bottom right, got 9, 9 to 3"),
        ([[5, 5], [9, 9], [5, 5], [9, 9]], "four corners in order around a convex"),
        ([[10, 10], [70, 12], [10, 40], [60, 42]], "four corners in order around"),
        ([[10, 10], [70, 10], [20, 20], [10, 60]], "four corners in order around"),
        ([[10, 10], [40, 10], [70, 10], [10, 40]], "four corners in order around"),
        ([[5, 5], [5.5, 5], [5.5, 5.5], [5, 5.5]], "at least a pixel, got an area"),
        (
            [[10, 45], [40, 45], [70, 45], [70, 20], [40, 20], [10, 20]],
            "clockwise around at least a pixel, got an area of -1500.0",
        ),
        ([130, 10, 150, 20], "outside of the page of 120 x 80 pixels"),
        ([10, -20, 50, 0], "outside of the page of 120 x 80 pixels"),
        (
            [[0, 0], [9000, 1], [9000, 9001], [0, 9000]],
            "9000 x 9000 pixels, far larger than the page of 120 x 80",
        ),
        (
            [[0, 0], [16400, 9], [33000, 0], [33000, 0.4], [16400, 9.4], [0, 0.4]],
            "pixels, far larger than the page of 120 x 80, or over 32,766 at a side",
        ),
    ],
)
def test_what_is_no_region_of_the_page_says_why(region, message):
    with pytest.raises(RegionError, match=f"^region: .*{message}") as caught:
        cut_out(PAGE, region)
    assert len(str(caught.value)) < 250


def test_what_opencv_refuses_is_one_sentence(monkeypatch):
    def refuse(*given, **options):
        raise cv2.error("too long")  # OpenCV 4 beyond 32,767 pixels, 5 does not

    monkeypatch.setattr(cv2, "warpPerspective", refuse)
    message = "^region: OpenCV cannot cut it out of 120 x 80 pixels: it says no more$"
    with pytest.raises(RegionError, match=message):
        cut_out(PAGE, [[10, 20], [70, 21], [70, 45], [10, 45]])


def test_a_bent_region_of_a_large_page_takes_little_memory():
    page = np.zeros((3000, 4000, 3), np.uint8)
    outline = [[0, 0], [2000, 9], [4000, 0], [4000, 2900], [2000, 2990], [0, 2900]]
    tracemalloc.start()
    crop = cut_out(page, outline)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert crop.shape[0] > 2900
    assert peak < 1.5 * crop.nbytes + 20e6


def test_bands_of_a_bent_region_fit_together(monkeypatch):
    outline = [[5, 20], [60, 5], [110, 22], [112, 60], [60, 44], [8, 58]]
    whole = cut_out(PAGE, outline)
    monkeypatch.setattr(regions, "_BAND", 300)
    np.testing.assert_array_equal(cut_out(PAGE, outline), whole)


def test_pixels_that_are_no_bytes_are_refused():
    with pytest.raises(ValueError, match=r"^page: expected uint8 pixels, got float64$"):
        cut_out(PAGE.astype(float), BOX)


PAIRS, FLAT = [[1, 2], [3, 4]], [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"points": [[1, 2], [3, 4]], "transcription": "A"}]', [(PAIRS, "A")]),
        ('[{"points": [1, 2, 3, 4], "difficult": false}]', [(FLAT, None)]),
        ("[[[1, 2], [3, 4]], [1, 2, 3, 4]]", [(PAIRS, None), (FLAT, None)]),
        ("[]", []),
        ("word", None),
        ("", None),
        ("[sic]", None),
        ('["a"]', None),
        ("[1, 2, 3, 4]", None),
        ('[{"text": "A"}]', None),
        ("[" * 100_000, None),
    ],
)
def test_what_detectors_write_is_told_from_labels(text, expected):
    assert parse_regions(text) == expected


def test_a_region_is_the_same_of_any_kind_of_page(tmp_path):
    quad = [[10, 20], [70, 25], [72, 50], [8, 44]]
    path = tmp_path / "page.png"
    cv2.imwrite(str(path), PAGE)
    rgb = np.ascontiguousarray(PAGE[..., ::-1])
    expected = cut_out(PAGE, quad)
    for page in (path, str(path), path.read_bytes(), Image.fromarray(rgb), rgb):
        np.testing.assert_array_equal(to_bgr(Region(page, quad)), expected)
    grey = PAGE[..., 0]
    for page in (grey, grey[..., None]):
        crop = to_bgr(Region(page, [10, 20, 70, 45]))
        np.testing.assert_array_equal(crop[..., 1], grey[20:45, 10:70])
        for outline in (quad, [*quad[:2], [75, 30], [76, 48], *quad[2:]]):
            of_colours = cut_out(PAGE, outline)[..., 0]
            np.testing.assert_array_equal(cut_out(page, outline).squeeze(), of_colours)
            assert cut_out(page, outline).ndim == page.ndim


def test_points_survive_json():
    points = as_points(BOX)
    assert parse_regions(json.dumps([points.tolist()])) == [(points.tolist(), None)]


@pytest.mark.parametrize("region", [[120, 10, 130, 20], [10, 80, 20, 90]])
def test_a_box_that_begins_where_the_page_ends_is_outside(region):
    with pytest.raises(RegionError, match="outside of the page of 120 x 80 pixels"):
        cut_out(PAGE, region)


def test_four_corners_around_one_pixel_are_that_pixel():
    quad = [[10, 20], [11, 20], [11, 21], [10, 21]]
    np.testing.assert_array_equal(cut_out(PAGE, quad), PAGE[20:21, 10:11])


def test_a_bent_word_is_as_high_as_its_sides_on_average():
    wedge = [[10, 20], [40, 20], [70, 20], [70, 30], [40, 40], [10, 50]]
    assert cut_out(PAGE, wedge).shape == (20, 61, 3)


def test_a_crop_of_up_to_twice_the_page_is_cut_out():
    around = [[-5, -5], [125, -4], [125, 85], [-5, 85]]
    assert cut_out(PAGE, around).shape == (90, 130, 3)


def test_a_bent_word_beyond_the_page_repeats_its_edge():
    outline = [[-20, 30], [0, 30], [20, 30], [20, 50], [0, 50], [-20, 50]]
    crop = cut_out(PAGE, outline)
    for column in range(18):
        assert difference(crop[:, column], PAGE[30:50, 0]).max() < 20


@pytest.mark.parametrize(
    "region",
    [
        [10.1, 20, 10.4, 60],  # an upright box
        [10, 20.1, 70, 20.4],
        [[10, 20], [70, 21], [70, 21.3], [10, 20.3]],
        [[10, 20], [40, 20], [70, 20], [70, 20.3], [40, 20.3], [10, 20.3]],
    ],
)
def test_a_region_thinner_than_a_pixel_is_one_pixel_thick(region):
    assert min(cut_out(PAGE, region).shape[:2]) == 1
