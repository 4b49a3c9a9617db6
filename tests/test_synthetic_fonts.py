"""Fonts: the catalogue, where files are found, what they can show."""

import os

import numpy as np
import pytest

from data_prep.synthetic import bundle, fonts, glyphs, vocabulary, words
from data_prep.synthetic.dice import Dice
from data_prep.synthetic.presets import EASY_FAMILIES, get_settings
from data_prep.synthetic.settings import plain
from tests.synthetic_fonts import fonts_or_skip


@pytest.fixture
def options():
    return fonts_or_skip()


def test_the_catalogue_holds_free_fonts_once_each():
    catalogue = fonts.read_catalogue()
    assert len(catalogue) > 400
    assert {font.licence for font in catalogue} == {"OFL-1.1", "Apache-2.0"}
    assert len({font.file for font in catalogue}) == len(catalogue)
    assert set(EASY_FAMILIES) <= {font.family for font in catalogue}
    for font in catalogue:
        assert set(font.missing) <= set(words.PUNCTUATION)
        for _, least, default, most in font.axes:
            assert least <= default <= most


def test_no_font_gives_one_sentence_that_says_what_to_install(tmp_path, options):
    options.folders = (str(tmp_path),)
    with pytest.raises(
        FileNotFoundError, match=r"pip install -r data_prep/fonts_default\.txt"
    ):
        fonts.find_fonts(options)
    options.folders = (str(tmp_path / "missing"),)
    with pytest.raises(FileNotFoundError, match="missing does not exist"):
        fonts.find_fonts(options)


def test_an_unknown_family_is_refused(options):
    options.families = ("Comic Sands",)
    with pytest.raises(ValueError, match="Comic Sands"):
        fonts.find_fonts(options)


def test_files_outside_of_the_catalogue_are_left_alone(tmp_path, options):
    _, path = fonts.find_fonts(options)[0]
    os.symlink(path, tmp_path / path.name)
    os.symlink(path, tmp_path / "Unknown.ttf")
    options.folders = (str(tmp_path),)
    assert [found.name for _, found in fonts.find_fonts(options)] == [path.name]


def test_a_limit_on_files_takes_from_each_family_in_turn(options):
    whole = fonts.find_fonts(options)
    families = len({font.family for font, _ in whole})
    if families < 5:
        pytest.skip("needs five font families")
    options.max_files = 5
    assert len({font.family for font, _ in fonts.find_fonts(options)}) == 5


def test_a_drawn_font_has_every_mark_of_the_text(options):
    chooser = fonts.Fonts(options)
    for index in range(300):
        drawn = chooser.draw(Dice(5, index), "a\\b`~%", 32)
        if drawn is not None:
            assert not set(drawn[0].missing) & set("\\`~%")


def test_marks_that_a_font_lacks_are_told_from_those_it_has():
    font = fonts.read_catalogue()[0]
    poor = fonts.FontFile(**{**vars(font), "missing": "%~"})
    assert poor.lacks("50%") and not poor.lacks("50")
    assert "%" not in fonts.characters_of(poor)


def test_every_installed_font_draws_its_characters(options):
    for font, path in fonts.find_fonts(options):
        opened = fonts._open_font(font, path, 32, 0)
        for character in fonts.characters_of(font):
            mask = glyphs.plain_mask(character, opened)
            assert mask is not None and mask.max() > 40, (font.file, character)


def test_letters_laid_out_one_at_a_time_are_whole_in_every_font(options):
    spaced = plain(get_settings("full")).glyphs
    spaced.spaced_share, spaced.jitter_share = 1.0, 0.0
    spaced.bold_share = spaced.thin_share = 0.0
    spaced.tracking = spaced.wide_tracking = (1.0, 1.0)  # nothing touches
    for font, path in fonts.find_fonts(options):
        opened = fonts._open_font(font, path, 32, 0)
        text = "jgQy;f"
        whole = sum(glyphs.plain_mask(c, opened).sum(dtype=int) for c in text)
        drawn = glyphs.draw_mask(Dice(1, 1), text, opened, spaced).sum(dtype=int)
        assert drawn > 0.97 * whole, font.file


def test_a_text_that_no_font_has_is_told_before_it_is_drawn(options):
    lacked: dict[str, set[str]] = {}  # by family: what none of its files has
    for font, _ in fonts.find_fonts(options):
        lacked.setdefault(font.family, set(font.missing)).intersection_update(
            font.missing
        )
    family = next((name for name, marks in lacked.items() if marks), None)
    if family is None:
        pytest.skip("needs a family that lacks a mark")
    options.families = (family,)
    chooser = fonts.Fonts(options)
    assert chooser.can_show("Word")
    assert not chooser.can_show("Word" + lacked[family].pop())


def test_an_empty_part_of_the_font_path_is_not_the_current_folder(
    tmp_path, monkeypatch, options
):
    _, path = fonts.find_fonts(options)[0]
    (tmp_path / "named").mkdir()
    monkeypatch.setenv(fonts.FONTS_VARIABLE, f"{tmp_path / 'named'}{os.pathsep}")
    os.symlink(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no usable font"):
        fonts.find_fonts(options)


def test_instances_of_a_variable_font_do_not_depend_on_the_order(options):
    variable = [item for item in fonts.find_fonts(options) if item[0].axes]
    if not variable:
        pytest.skip("needs a variable font")
    font, path = variable[0]
    first = [fonts._open_font(font, path, 40, k) for k in (0, 1, 2)]
    again = [fonts._open_font(font, path, 40, k) for k in (2, 1, 0)][::-1]
    masks = [glyphs.plain_mask("Hand", one) for one in first]
    for mask, other in zip(masks, again, strict=True):
        np.testing.assert_array_equal(mask, glyphs.plain_mask("Hand", other))
    assert len({mask.tobytes() for mask in masks}) > 1


def test_a_bundled_font_draws_the_same_pixels_as_the_whole(tmp_path, options):
    found = fonts.find_fonts(options)
    plain_fonts = [item for item in found if not item[0].axes][:2]
    variable = [item for item in found if item[0].axes][:2]
    for font, path in plain_fonts + variable:
        small = tmp_path / font.file
        small.write_bytes(bundle.shrink_font(path))
        assert small.stat().st_size < 400_000
        for text in ("Handgloves", "$12.50", "AVATAR"):
            masks = [
                glyphs.plain_mask(text, fonts._open_font(font, source, 44, 1))
                for source in (path, small)
            ]
            np.testing.assert_array_equal(*masks)


def test_a_bundle_is_found_by_its_folder(tmp_path, options, monkeypatch):
    options.max_files = 2
    monkeypatch.setattr(vocabulary, "write_word_list", lambda path, count: None)
    assert bundle.write_bundle(tmp_path / "out", options, 10) == 2
    lines = (tmp_path / "out" / bundle.LICENCES_NAME).read_text().splitlines()
    assert len(lines) == 3
    fresh = plain(get_settings("full")).fonts
    monkeypatch.setenv(fonts.FONTS_VARIABLE, str(tmp_path / "out"))
    assert len(fonts.find_fonts(fresh)) == 2
