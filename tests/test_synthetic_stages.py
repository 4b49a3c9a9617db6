"""The stages of a picture, one by one."""

import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.synthetic import (
    background,
    colour,
    compose,
    degrade,
    geometry,
    glyphs,
    statistics,
    visibility,
)
from data_prep.synthetic.dice import Dice
from data_prep.synthetic.fields import shared_fields
from data_prep.synthetic.presets import get_settings
from data_prep.synthetic.settings import plain

seeds = st.integers(0, 10_000)
OPTIONS = plain(get_settings("full"))


def bar_text(width=90, height=30):
    """A mask that stands for a word: bars to its very edges."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, ::9] = mask[:, 1::9] = mask[:, 2::9] = 255
    mask[:, -3:] = 255
    mask[:2] = mask[-2:] = 255
    return mask


@given(seeds, st.integers(20, 400), st.integers(10, 60))
def test_the_map_holds_the_whole_text(seed, width, height):
    dice = Dice(1, seed)
    bend = geometry.draw_bend(dice, width, height, 5, OPTIONS.geometry)
    fields = shared_fields()
    maps = geometry.inverse_map(dice, bend, width, height, fields)
    if maps is None:
        return
    x, y = maps
    inside = (np.abs(x) <= width / 2) & (np.abs(y) <= height / 2)
    assert inside.any()
    border = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    assert not border.any()
    corners = [(sx * width / 2, sy * height / 2) for sx in (-1, 1) for sy in (-1, 1)]
    for corner_x, corner_y in corners:  # every corner of the text is in the picture
        distance = np.hypot(x - corner_x, y - corner_y).min()
        assert distance < 3 + 0.1 * height, bend


def test_few_bends_are_too_strong_for_their_canvas():
    fields = shared_fields()
    lost = 0
    for seed in range(500):
        dice = Dice(2, seed)
        bend = geometry.draw_bend(dice, 120.0, 30.0, 6, OPTIONS.geometry)
        lost += geometry.inverse_map(dice, bend, 120.0, 30.0, fields) is None
    assert lost < 25


def test_a_flat_bend_leaves_the_text_as_it_is():
    mask = bar_text()
    padded, scale = glyphs.scale_and_pad(mask, (1.0, 1.0))
    maps = geometry.inverse_map(
        Dice(0, 0), geometry.Bend(), mask.shape[1], mask.shape[0], shared_fields()
    )
    warped = geometry.warp(padded, maps, scale)
    _, _, width, height = cv2.boundingRect((warped > 30).view(np.uint8))
    assert abs(width - mask.shape[1]) <= 2 and abs(height - mask.shape[0]) <= 2
    assert abs(int(warped.sum()) - int(mask.sum())) < 0.02 * mask.sum()


def test_a_rotation_turns_the_text_by_its_angle():
    mask = np.full((12, 120), 255, np.uint8)
    padded, scale = glyphs.scale_and_pad(mask, (1.0, 1.0))
    bend = geometry.Bend(angle=math.radians(20))
    maps = geometry.inverse_map(Dice(0, 0), bend, 120.0, 12.0, shared_fields())
    rows, columns = np.nonzero(geometry.warp(padded, maps, scale) > 128)
    slope = np.polyfit(columns, rows, 1)[0]
    assert math.degrees(math.atan(slope)) == pytest.approx(20, abs=1.5)


def with_options(section, **changes):
    """Returns a section of the settings with some of them changed."""
    return SimpleNamespace(**vars(getattr(OPTIONS, section)) | changes)


@given(seeds, st.floats(15, 400), st.floats(9, 110))
def test_bends_are_in_proportion_to_the_text(seed, width, height):
    always = dict(flat_share=0.0, elastic_share=1.0)
    curved = with_options("geometry", **always, curve_share=1.0)
    bend = geometry.draw_bend(Dice(12, seed), width, height, 5, curved)
    low, high = curved.elastic
    assert low <= bend.elastic / height <= high
    # A tighter arc would fold the letters.
    assert 0 < abs(bend.curve) <= min(curved.curve[1], 0.9 * width / height)

    waved = with_options("geometry", **always, curve_share=0.0, wave_share=1.0)
    bend = geometry.draw_bend(Dice(13, seed), width, height, 5, waved)
    amplitude, period, _ = bend.wave
    assert waved.wave[0] <= amplitude / height <= waved.wave[1]
    assert 0.5 <= period / width <= 1.6


@given(seeds)
def test_an_arc_shows_the_text_once(seed):
    dice = Dice(3, seed)
    bend = geometry.Bend(curve=dice.uniform(0.5, 2.1), shear=dice.uniform(-0.3, 0.3))
    mask = np.full((11, 44), 255, np.uint8)
    maps = geometry.inverse_map(dice, bend, 44.0, 11.0, shared_fields())
    padded, scale = glyphs.scale_and_pad(mask, (1.0, 1.0))
    warped = geometry.warp(padded, maps, scale)
    count, _ = cv2.connectedComponents((warped > 60).astype(np.uint8))
    assert count == 2  # the ground and one piece


def test_shrinking_a_mask_keeps_its_grey_mass():
    mask = bar_text(200, 60)
    small, scale = glyphs.scale_and_pad(mask, (0.4, 0.5))
    ratio = small.sum() / mask.sum() * scale[0] * scale[1]
    assert ratio == pytest.approx(0.4 * 0.5, rel=0.03)


@given(seeds, st.sampled_from(sorted(vars(OPTIONS.style)["shares"])))
def test_a_style_keeps_the_letters_and_adds_a_layer(seed, style):
    padded, _ = glyphs.scale_and_pad(bar_text(), (1.0, 1.0))
    layers = glyphs.add_style(Dice(4, seed), padded, style, 30.0, OPTIONS.style)
    np.testing.assert_array_equal(layers[..., 0], padded)
    assert layers.shape == (*padded.shape, 2)
    if style in ("border", "hollow", "extrude", "glow"):
        assert layers[..., 1].sum(dtype=int) > padded.sum(dtype=int)
    if style in ("border", "hollow", "extrude"):
        assert (layers[..., 1] >= padded).all()


@given(seeds)
def test_a_box_loses_next_to_nothing_of_the_text(seed):
    mask = np.zeros((120, 260), np.uint8)
    mask[40:80, 60:200] = 255
    rows, columns = geometry.draw_box(Dice(5, seed), mask, OPTIONS.box)
    kept = mask[rows, columns].sum() / mask.sum()
    assert kept > 0.92
    margin = 2 * OPTIONS.box.loose[1] * 40
    assert rows.stop - rows.start <= 40 + margin + 2
    assert columns.stop - columns.start <= 140 + 1.2 * margin + 2


@pytest.mark.parametrize("tight_share", [0.0, 1.0])
def test_a_side_is_as_tight_or_loose_as_was_drawn(tight_share):
    options = with_options("box", tight_share=tight_share, tight=(0, 0.1), loose=(1, 2))
    low, high = options.tight if tight_share else options.loose
    mask = np.zeros((240, 480), np.uint8)
    mask[100:140, 160:300] = 255
    for seed in range(50):
        rows, columns = geometry.draw_box(Dice(14, seed), mask, options)
        above, below = 100 - rows.start, rows.stop - 140
        left, right = 160 - columns.start, columns.stop - 300
        for margin in (above, below, left / 1.2, right / 1.2):
            assert low * 40 - 1 <= margin <= high * 40 + 1


@given(seeds, st.integers(20, 400), st.integers(10, 60))
def test_a_wide_box_has_room_on_all_sides_and_the_text_in_its_middle(
    seed, width, height
):
    dice = Dice(15, seed)
    options = with_options("box", wide_share=1.0)
    room = geometry.draw_room(dice, options)
    assert options.wide[0] <= room <= options.wide[1]
    maps = geometry.inverse_map(
        dice, geometry.Bend(), width, height, shared_fields(), room
    )
    assert maps is not None
    inside = (np.abs(maps[0]) <= width / 2) & (np.abs(maps[1]) <= height / 2)
    mask = inside.astype(np.uint8) * 255
    left, top, across, down = cv2.boundingRect(mask)
    rows, columns = geometry.draw_box(dice, mask, options, room)
    around = np.array(
        [
            (top - rows.start) / 1.0,
            (rows.stop - top - down) / 1.0,
            (left - columns.start) / 0.6,
            (columns.stop - left - across) / 0.6,
        ]
    ) / min(across, down)
    rounding = 2 / min(across, down)
    assert (around > 0.75 * room - rounding).all(), around
    assert (around < 1.25 * room + rounding).all(), around


def test_no_number_is_drawn_for_boxes_that_are_never_wide():
    dice, other = Dice(16, 0), Dice(16, 0)
    assert geometry.draw_room(dice, OPTIONS.box) == 0.0
    assert dice.random() == other.random()


def test_a_box_around_nothing_is_none():
    assert (
        geometry.draw_box(Dice(0, 0), np.zeros((50, 50), np.uint8), OPTIONS.box) is None
    )


@given(seeds)
def test_colours_are_in_range_and_keep_their_contrast(seed):
    text, ground = colour.draw_pair(Dice(6, seed), OPTIONS.colour)
    for one in (text, ground):
        assert one.dtype == np.float32 and one.min() >= -1e-3 and one.max() <= 255.001
    gap = abs(colour.grey(text) - colour.grey(ground))
    assert gap >= OPTIONS.colour.low_contrast[0] - 0.5


def test_colours_are_light_on_dark_as_often_as_dark_on_light():
    pairs = [colour.draw_pair(Dice(7, i), OPTIONS.colour) for i in range(600)]
    light = sum(colour.grey(text) > colour.grey(ground) for text, ground in pairs)
    assert 230 < light < 370


@given(seeds, st.integers(8, 130), st.integers(6, 400))
def test_a_background_fills_the_picture_around_its_colour(seed, height, width):
    ground = np.array([90, 120, 150], np.float32)
    planes = background.draw_background(
        Dice(8, seed), ground, height, width, shared_fields(), OPTIONS.background
    )
    assert planes.shape == (3, height, width) and planes.dtype == np.float32
    assert np.isfinite(planes).all()


def test_switching_textures_off_leaves_flat_grounds():
    chosen = get_settings("full")
    chosen.background.shares = {"solid": 1.0}
    chosen.background.edge_share = chosen.background.rule_share = 0.0
    options = plain(chosen).background
    ground = np.array([90, 120, 150], np.float32)
    for seed in range(20):
        planes = background.draw_background(
            Dice(9, seed), ground, 30, 50, shared_fields(), options
        )
        assert planes.std(axis=(1, 2)).max() < 1e-3


def test_text_covers_its_ground_in_its_colour():
    planes = np.zeros((3, 30, 90), np.float32)
    chosen = get_settings("full")
    for name in ("textured_share", "gradient_share", "worn_share", "faint_share"):
        chosen.fill[name] = 0.0
    compose.draw_foreground(
        Dice(0, 0),
        planes,
        bar_text(),
        "",
        text_colour=np.array([10, 20, 30], np.float32),
        ground_colour=np.zeros(3, np.float32),
        fields=shared_fields(),
        settings=plain(chosen).fill,
    )
    np.testing.assert_allclose(planes[:, 0, 0], [10, 20, 30], atol=1e-4)
    assert planes[:, 10, 5].max() == 0


def painted(seed, layers, style, *, text=250, ground=100):
    """Returns the planes of a grey ground with a text of one colour on it."""
    shares = ("textured_share", "gradient_share", "worn_share", "faint_share")
    planes = np.full((3, *layers.shape[:2]), ground, np.float32)
    compose.draw_foreground(
        Dice(17, seed),
        planes,
        layers,
        style,
        text_colour=np.full(3, text, np.float32),
        ground_colour=np.full(3, ground, np.float32),
        fields=shared_fields(),
        settings=with_options("fill", **dict.fromkeys(shares, 0.0)),
    )
    return planes


def half_a_letter(layer):
    """Returns layers of a letter on the left half, over another layer everywhere."""
    mask = np.zeros((8, 8), np.uint8)
    mask[:, :4] = 255
    return cv2.merge([mask, np.full_like(mask, layer)])


@given(seeds)
def test_a_hollow_letter_has_its_outline_in_the_colour_of_the_text(seed):
    planes = painted(seed, half_a_letter(255), "hollow")
    np.testing.assert_allclose(planes[:, :, 4:], 250, atol=1e-3)
    assert (planes[:, :, :4] <= 100 + 0.25 * 150 + 1e-3).all()


@pytest.mark.parametrize("style", ["border", "glow", "shadow", "extrude"])
def test_the_layer_of_a_style_shows_beside_the_letters_alone(style):
    for seed in range(20):
        planes = painted(seed, half_a_letter(255), style)
        np.testing.assert_allclose(planes[:, :, :4], 250, atol=1e-3)
        assert np.abs(planes[:, :, 4:] - 100).max() > 1


@given(seeds)
def test_a_shadow_darkens_the_ground_whatever_the_colour_of_the_text(seed):
    planes = painted(seed, half_a_letter(255), "shadow", text=250, ground=100)
    assert (planes[:, :, 4:] < 100).all()


@given(seeds)
def test_an_embossed_text_leaves_the_ground_where_there_is_no_relief(seed):
    planes = painted(seed, half_a_letter(128), "emboss")
    np.testing.assert_allclose(planes[:, :, 4:], 100, atol=1e-3)


@pytest.mark.parametrize(
    ("difference", "visible"), [(60, True), (-60, True), (8, False), (-8, False)]
)
def test_text_is_visible_by_its_contrast(difference, visible):
    mask = cv2.copyMakeBorder(bar_text(), 8, 8, 8, 8, cv2.BORDER_CONSTANT)
    regions = visibility.find_regions(mask)
    picture = np.full(mask.shape, 120, np.float32)
    picture[mask > 0] += difference
    assert visibility.is_visible(picture, regions, contrast=16, clutter=0.6) == visible


def test_text_drowns_in_clutter_and_in_blur():
    mask = cv2.copyMakeBorder(bar_text(), 8, 8, 8, 8, cv2.BORDER_CONSTANT)
    regions = visibility.find_regions(mask)
    picture = np.full(mask.shape, 120, np.float32)
    picture[mask > 0] += 40
    limits = {"contrast": 16, "clutter": 0.6}
    assert visibility.is_visible(picture, regions, **limits)
    noise = np.random.default_rng(0).normal(0, 70, mask.shape).astype(np.float32)
    assert not visibility.is_visible(picture + noise, regions, **limits)
    blurred = cv2.GaussianBlur(picture, (0, 0), 9)
    assert not visibility.is_visible(blurred, regions, **limits)


def test_clutter_is_what_surrounds_the_letters_and_not_what_fills_them():
    mask = cv2.copyMakeBorder(bar_text(), 8, 8, 8, 8, cv2.BORDER_CONSTANT)
    regions = visibility.find_regions(mask)
    noise = np.random.default_rng(0).normal(0, 70, mask.shape)
    for noisy, visible in ((mask > 0, True), (mask == 0, False)):
        picture = np.where(mask > 0, 160, 120) + noise * noisy
        grey = picture.astype(np.float32)
        found = visibility.is_visible(grey, regions, contrast=16, clutter=0.6)
        assert found == visible


def test_a_third_without_letters_counts_as_visible():
    mask = np.zeros((30, 90), np.uint8)
    mask[8:22, 10:30] = 255  # what surrounds it reaches into the middle third
    regions = visibility.find_regions(mask)
    assert visibility.is_visible_throughout(mask, regions, contrast=16, clutter=0.1)


def test_glare_over_one_third_makes_the_text_invisible_there():
    mask = cv2.copyMakeBorder(bar_text(), 8, 8, 8, 8, cv2.BORDER_CONSTANT)
    regions = visibility.find_regions(mask)
    picture = np.full(mask.shape, 60, np.float32)
    picture[mask > 0] += 80
    limits = {"contrast": 16, "clutter": 0.3}
    assert visibility.is_visible_throughout(picture, regions, **limits)
    picture[:, 70:] = 250
    assert visibility.is_visible(picture, regions, contrast=16, clutter=0.1)
    assert not visibility.is_visible_throughout(picture, regions, **limits)


def test_text_seen_from_the_side_climbs_with_upright_letters():
    mask = np.full((10, 90), 255, np.uint8)
    padded, scale = glyphs.scale_and_pad(mask, (1.0, 1.0))
    bend = geometry.Bend(side=0.3, squeeze=0.7)
    maps = geometry.inverse_map(Dice(0, 0), bend, 90.0, 10.0, shared_fields())
    warped = geometry.warp(padded, maps, scale) > 128
    rows, columns = np.nonzero(warped)
    assert columns.max() - columns.min() == pytest.approx(0.7 * 90, abs=3)
    assert np.polyfit(columns, rows, 1)[0] == pytest.approx(0.3, abs=0.03)
    heights = warped.sum(0)[warped.any(0)]
    assert np.median(heights) == pytest.approx(10, abs=1)


def test_a_faint_shape_has_no_regions():
    assert visibility.find_regions(np.full((30, 30), 20, np.uint8)) is None


@given(seeds, st.integers(10, 100), st.integers(8, 300))
def test_degradation_keeps_size_and_type(seed, height, width):
    dice = Dice(10, seed)
    planes = np.full((3, height, width), 128, np.float32)
    degrade.apply_light(dice, planes, 100.0, shared_fields(), OPTIONS.degrade)
    image = degrade.apply_camera(
        dice,
        degrade.to_image(planes),
        enlarge=1.0,
        text_height=height * 0.8,
        contrast=100.0,
        settings=OPTIONS.degrade,
    )
    assert image.shape == (height, width, 3) and image.dtype == np.uint8


def photographed(seed, image, kind, text_height=30.0, **changes):
    """Returns the picture after one kind of blur and nothing else."""
    options = with_options(
        "degrade",
        **dict(occluder_share=0.0, grey_share=0.0, blur_shares={kind: 1.0}) | changes,
    )
    return degrade.apply_camera(
        Dice(15, seed),
        image,
        enlarge=1.0,
        text_height=text_height,
        contrast=100.0,
        settings=options,
    )


def grey_bars(width=90, height=40):
    return cv2.cvtColor(bar_text(width, height), cv2.COLOR_GRAY2BGR)


def test_a_blur_never_exceeds_its_limit():
    image = grey_bars()
    strongest = cv2.GaussianBlur(image, (0, 0), 0.02 * 1.35 * 29)
    for seed in range(40):
        found = photographed(seed, image, "gauss", 29.0, blur=10.0, blur_limit=0.02)
        assert found.std() >= strongest.std() - 0.5


def test_motion_keeps_the_brightness():
    image = np.full((40, 90, 3), 120, np.uint8)
    for seed in range(20):
        found = photographed(seed, image, "motion")
        np.testing.assert_allclose(found, image, atol=1)


def test_text_that_would_become_too_small_is_not_made_smaller():
    image = grey_bars(height=60)  # of which a curved text is a part
    for seed in range(20):
        kept = photographed(seed, image, "small", 12.0, small=(0.4, 0.8))
        np.testing.assert_array_equal(kept, image)
        assert (photographed(seed, image, "small", 30.0) != image).any()


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_a_change_of_contrast_keeps_middle_grey(factor):
    shares = dict(light_share=0.0, glare_share=0.0, noise_share=0.0, tone_share=1.0)
    options = with_options(
        "degrade", **shares, tone_contrast=(factor, factor), tone_brightness=0.0
    )
    planes = np.array([28, 128, 228], np.float32).repeat(12).reshape(3, 3, 4)
    degrade.apply_light(Dice(16, 0), planes, 100.0, shared_fields(), options)
    expected = [128 - 100 * factor, 128, 128 + 100 * factor]
    np.testing.assert_allclose(planes.mean(axis=(1, 2)), expected, rtol=1e-5)


def test_to_image_clips_instead_of_wrapping():
    planes = np.array([[-40.0]], np.float32), np.array([[300.0]]), np.array([[99.6]])
    image = degrade.to_image(np.stack(planes).astype(np.float32))
    assert image[0, 0].tolist() == [0, 255, 100]


def test_small_pictures_keep_a_better_jpeg():
    qualities = [
        degrade.draw_quality(Dice(11, i), 15, OPTIONS.degrade) for i in range(300)
    ]
    kept = [quality for quality in qualities if quality is not None]
    assert min(kept) >= OPTIONS.degrade.jpeg_small
    assert len(kept) == pytest.approx(300 * OPTIONS.degrade.jpeg_share, rel=0.2)
    poor = SimpleNamespace(jpeg_share=1.0, jpeg=(10, 40), jpeg_small=55)
    assert {degrade.draw_quality(Dice(1, i), 12, poor) for i in range(50)} == {55}


def test_statistics_of_a_known_picture():
    image = np.zeros((48, 96, 3), np.uint8)
    image[:, 48:] = 200
    measured = statistics.measure_image(image)
    assert measured["height"] == 48 and measured["aspect"] == 2.0
    assert measured["contrast"] == 200
    # One column of +200 and one of -200 in 96.
    assert measured["sharpness"] == pytest.approx(200 * math.sqrt(2 / 96), rel=1e-3)
    assert measured["sharpness_48"] == measured["sharpness"]


def test_statistics_of_known_labels():
    shares = statistics.measure_labels(["STOP", "Stop", "stop", "sToP", "42", "A-1"])
    assert shares == pytest.approx(
        {
            "upper": 2 / 6,
            "title": 1 / 6,
            "lower": 1 / 6,
            "mixed": 1 / 6,
            "digits": 1 / 6,
            "punctuation": 1 / 6,
        }
    )


def test_statistics_compare_two_sets_in_a_table_and_a_plot(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (30, 60, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    listing = tmp_path / "real.tsv"
    listing.write_text("a.png\tSTOP\na.png\tgo\n")
    pairs = list(statistics.read_real(listing, 10))
    measured = {
        "rendered": statistics.measure_all(pairs[:1]),
        "real": statistics.measure_all(pairs),
    }
    table = statistics.format_table(measured)
    assert "30 / 30 / 30" in table and "50.0 %" in table
    statistics.plot(measured, tmp_path / "out" / "plot.png")
    assert (tmp_path / "out" / "plot.png").stat().st_size > 1000
    listing.write_text("a.png STOP\n")
    with pytest.raises(ValueError, match="path TAB label"):
        list(statistics.read_real(listing, 10))
    with pytest.raises(ValueError, match="no picture"):
        statistics.measure_all([])
