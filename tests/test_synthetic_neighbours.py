"""Text around the word: where a crop shows it, and that it leaves the word alone."""

import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.synthetic import geometry, neighbours, render
from data_prep.synthetic.dice import Dice
from data_prep.synthetic.fields import shared_fields
from data_prep.synthetic.presets import get_settings
from data_prep.synthetic.settings import plain
from tests.synthetic_fonts import fonts_or_skip

OPTIONS = plain(get_settings("full"))
LOOSE = plain(get_settings("loose"))


@pytest.fixture(scope="module", autouse=True)
def fonts():
    return fonts_or_skip()


@pytest.fixture(scope="module")
def tools(fonts):
    return render.load_tools(get_settings("full").to_json(sort_keys=True))


def draw_around(tools, dice, text, page, **changes):
    return neighbours.draw_neighbours(
        dice,
        text,
        page,
        vocabulary=tools.vocabulary,
        fonts=tools.fonts,
        word_settings=OPTIONS.words,
        settings=SimpleNamespace(**{**vars(OPTIONS.neighbours), **changes}),
    )


def turned_page(font, ink, degrees):
    """The picture of an upright box just around a text that is turned."""
    bend = geometry.Bend(angle=math.radians(degrees))
    maps = geometry.inverse_map(Dice(0, 0), bend, ink[1], ink[0], shared_fields())
    inside = (np.abs(maps[0]) < ink[1] / 2) & (np.abs(maps[1]) < ink[0] / 2)
    left, top, width, height = cv2.boundingRect(inside.astype(np.uint8))
    box = slice(top, top + height), slice(left, left + width)
    return neighbours.Page((maps[0][box], maps[1][box]), (1.0, 1.0), ink, font)


@settings(deadline=None, max_examples=80)
@given(seed=st.integers(0, 10_000), options=st.sampled_from([OPTIONS, LOOSE]))
def test_neighbours_fit_the_picture_and_cover_nothing_of_the_word(tools, seed, options):
    dice = Dice(1, seed)
    shape = render.draw_shape(dice, "Harbour", tools, options)
    if shape is None:
        return
    around = draw_around(tools, dice, shape.text, shape.page)
    assert around.shape == shape.layers.shape[:2] and around.dtype == np.uint8
    word = shape.layers if shape.layers.ndim == 2 else shape.layers[..., 0]
    covered = np.minimum(around, word).sum() / word.sum()
    assert covered < 0.02


def test_the_upright_box_of_a_climbing_word_shows_its_neighbours(tools):
    _, font = tools.fonts.draw(Dice(2, 0), "Harbour", 32)
    shown = {}
    for degrees in (0, 20):
        page = turned_page(font, (24, 130), degrees)
        drawn = [
            draw_around(tools, Dice(3, seed), "Harbour", page, line_share=1.0)
            for seed in range(30)
        ]
        shown[degrees] = np.mean([(around > 128).mean() for around in drawn])
    assert shown[0] < 0.01  # a tight box around straight text has no room
    assert shown[20] > 0.05


def test_loose_crops_show_other_lines_and_the_word_between_them(tools):
    crops, with_lines = 0, 0
    for seed in range(60):
        dice = Dice(7, seed)
        shape = render.draw_shape(dice, "Harbour", tools, LOOSE)
        if shape is None:
            continue
        crops += 1
        left, top, across, down = cv2.boundingRect((shape.outline > 40).view(np.uint8))
        rows, columns = shape.outline.shape
        assert abs(top + down / 2 - rows / 2) < 0.2 * rows
        assert abs(left + across / 2 - columns / 2) < 0.25 * columns
        assert min(top, rows - top - down) > 0.25 * min(across, down)
        around = draw_around(tools, dice, shape.text, shape.page, line_share=1.0)
        above, below = around[:top].any(), around[top + down :].any()
        with_lines += bool(above and below)
    assert crops > 50
    assert with_lines > 0.8 * crops


def test_lines_run_along_the_word(tools):
    _, font = tools.fonts.draw(Dice(2, 0), "Harbour", 32)
    page = turned_page(font, (24, 400), 15)
    around = draw_around(
        tools, Dice(5, 1), "Harbour", page, line_share=1.0, word_share=0.0
    )
    band = np.abs(page.maps[1]) < 12  # of the word: the gap follows its slope
    assert around[band].max() == 0 and around[~band].max() > 200


def test_a_word_beside_the_text_stands_on_its_line(tools):
    _, font = tools.fonts.draw(Dice(2, 0), "Harbour", 32)
    x, y = np.meshgrid(
        np.arange(-200, 200, dtype=np.float32), np.arange(-30, 30, dtype=np.float32)
    )
    page = neighbours.Page((x, y), (1.0, 1.0), (24, 100), font)
    around = draw_around(
        tools,
        Dice(6, 2),
        "HARBOUR",
        page,
        line_share=0.0,
        word_share=1.0,
        same_case_share=1.0,
    )
    inked = np.nonzero(around.max(axis=1) > 128)[0]
    beside = np.nonzero(around.max(axis=0) > 128)[0] - 200
    assert np.abs(beside).min() >= 50  # none on the word itself
    assert beside.min() < -50 and beside.max() > 50
    assert abs(inked.mean() - 30) < 4  # capitals beside capitals


def test_a_neighbouring_word_stands_farther_than_letters_that_are_spread(tools):
    _, font = tools.fonts.draw(Dice(2, 0), "Harbour", 32)
    natural = font.getbbox("HARBOUR")[2] - font.getbbox("HARBOUR")[0]
    x, y = np.meshgrid(
        np.arange(-300, 300, dtype=np.float32), np.arange(-30, 30, dtype=np.float32)
    )
    tracking = 20
    ink = (24, natural + 6 * tracking)
    page = neighbours.Page((x, y), (1.0, 1.0), ink, font)
    for seed in range(20):
        around = draw_around(
            tools, Dice(8, seed), "HARBOUR", page, line_share=0.0, word_share=1.0
        )
        beside = np.abs(np.nonzero(around.max(axis=0) > 128)[0] - 300)
        assert beside.min() >= ink[1] / 2 + tracking


@given(seed=st.integers(0, 2_000))
@settings(deadline=None, max_examples=20)
def test_without_a_share_no_picture_has_neighbours(tools, seed):
    options = plain(get_settings("easy"))
    dice = Dice(7, seed)
    shape = render.draw_shape(dice, "harbour", tools, options)
    if shape is None:
        return
    text, ground = np.full(3, 255, np.float32), np.zeros(3, np.float32)
    planes = render.draw_scene(dice, shape, text, ground, tools, options)
    np.testing.assert_allclose(planes[0], shape.layers, atol=1)
