"""Finished pictures: determinism, labels, presets, the grain source."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from data_prep.synthetic import render, sheet, words
from data_prep.synthetic.dice import Dice
from data_prep.synthetic.presets import get_settings
from data_prep.synthetic.render import WordRenderer
from data_prep.synthetic.settings import plain
from data_prep.synthetic.source import RenderedWords
from tests.synthetic_fonts import fonts_or_skip


@pytest.fixture(scope="module", autouse=True)
def fonts():
    return fonts_or_skip()


@pytest.fixture(scope="module")
def renderer():
    return WordRenderer(get_settings("full"), seed=7)


def test_a_picture_is_the_same_alone_in_a_batch_and_after_pickling(renderer):
    batch = [renderer.render(index) for index in range(30)]
    for index in (29, 3, 17):
        for other in (
            WordRenderer(get_settings("full"), seed=7),
            pickle.loads(pickle.dumps(renderer)),
        ):
            alone = other.render(index)
            np.testing.assert_array_equal(alone.image, batch[index].image)
            assert alone.text == batch[index].text


def test_other_seeds_and_indices_give_other_pictures(renderer):
    first = renderer.render(0).image
    assert not np.array_equal(first, renderer.render(1).image)
    other = WordRenderer(get_settings("full"), seed=8).render(0).image
    assert not np.array_equal(first, other)


def test_pictures_are_bgr_bytes_with_room_for_text(renderer):
    for index in range(60):
        image = renderer.render(index).image
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
        assert image.shape[0] >= 7 and image.shape[1] >= 5
        assert image.std() > 3


def test_the_jpeg_decodes_to_the_rendered_pixels():
    chosen = get_settings("full")
    chosen.degrade.jpeg_share = 1.0
    renderer = WordRenderer(chosen, seed=3)
    for index in range(10):
        data, text = renderer.render_jpeg(index)
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        rendered = renderer.render(index)
        np.testing.assert_array_equal(decoded, rendered.image)
        assert text == rendered.text


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_labels_of_pictures_keep_to_their_split(split):
    renderer = WordRenderer(get_settings("full"), seed=2, split=split)
    for index in range(40):
        text = renderer.render(index).text
        assert words.belongs(text, split)
        assert set(text) <= set(words.CHARACTERS)


def test_fonts_without_lower_case_have_labels_in_capitals():
    chosen = get_settings("easy")
    chosen.fonts.families = ("Bebas Neue", "Cinzel", "Luckiest Guy")
    try:
        texts = [WordRenderer(chosen, seed=1).render(index).text for index in range(12)]
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert all(text.isupper() for text in texts)


def test_a_plain_word_of_a_font_without_lower_case_is_labelled_in_capitals():
    chosen = get_settings("easy")
    chosen.fonts.families = ("Bebas Neue", "Cinzel", "Luckiest Guy")
    try:
        tools = render.load_tools(chosen.to_json(sort_keys=True))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert render.draw_plain(Dice(1, 0), "Word", tools)[1] == "WORD"


def test_randtext_pictures_show_no_word():
    renderer = WordRenderer(get_settings("randtext"), seed=1)
    known = render.load_tools(
        get_settings("randtext").to_json(sort_keys=True)
    ).vocabulary.known
    texts = [renderer.render(index).text for index in range(150)]
    assert not [text for text in texts if len(text) > 2 and text.lower() in known]


def test_threads_that_start_together_load_the_tools_once(monkeypatch):
    loaded, started = [], threading.Barrier(4)

    def load(words):
        loaded.append(words)
        return load_vocabulary(words)

    load_vocabulary = render.vocabulary.load_vocabulary
    monkeypatch.setattr(render.vocabulary, "load_vocabulary", load)
    chosen = get_settings("full")
    chosen.words.count = 120_000
    chosen.attempts = 9  # settings that no other test has loaded

    def open_tools(_):
        started.wait()
        return render.load_tools(chosen.to_json(sort_keys=True))

    with ThreadPoolExecutor(4) as pool:
        tools = list(pool.map(open_tools, range(4)))
    assert len(loaded) == 1 and all(one is tools[0] for one in tools)


def test_a_word_that_never_comes_out_well_is_drawn_plainly(monkeypatch):
    monkeypatch.setattr(render, "draw_picture", lambda *_: None)
    rendered = WordRenderer(get_settings("full"), seed=1).render(5)
    assert rendered.image.std() > 40
    assert rendered.text


def test_few_pictures_need_the_plain_fallback(monkeypatch, renderer):
    plain_ones = []
    draw_plain = render.draw_plain
    monkeypatch.setattr(
        render, "draw_plain", lambda *a: plain_ones.append(1) or draw_plain(*a)
    )
    for index in range(300):
        renderer.render(index)
    assert len(plain_ones) <= 3


def test_accepted_pictures_keep_their_text_visible(renderer):
    chosen = get_settings("full")
    options = plain(chosen)
    tools = render.load_tools(chosen.to_json(sort_keys=True))
    drawn = [render.draw_picture(Dice(1, i), "Word", tools, options) for i in range(10)]
    assert sum(picture is not None for picture in drawn) >= 5


@pytest.mark.parametrize("limit", ["contrast", "degraded_contrast", "part_share"])
def test_each_limit_of_visibility_is_kept(limit):
    chosen = get_settings("full")
    options = plain(chosen)
    tools = render.load_tools(chosen.to_json(sort_keys=True))
    setattr(options.visibility, limit, 300.0)  # nothing reaches that
    for index in range(10):
        assert render.draw_picture(Dice(1, index), "Word", tools, options) is None


def test_the_source_is_a_random_access_sequence(renderer):
    source = RenderedWords(get_settings("full"), seed=7, count=12)
    assert len(source) == 12
    element = source[np.int64(5)]
    assert element["id"] == "rendered/full/7/000005"
    np.testing.assert_array_equal(element["image"], renderer.render(5).image)
    assert element["text"] == renderer.render(5).text
    for outside in (-1, 12):
        with pytest.raises(IndexError, match=f"no word {outside} of 12"):
            source[outside]
    with pytest.raises(ValueError, match="count must be at least 1"):
        RenderedWords(get_settings("full"), seed=7, count=0)
    assert "12" in repr(pickle.loads(pickle.dumps(source)))


def test_grain_reads_the_source():
    grain = pytest.importorskip("grain")
    source = RenderedWords(get_settings("easy"), seed=1, count=6, name="easy")
    texts = [element["text"] for element in grain.MapDataset.source(source)]
    assert texts == [source[index]["text"] for index in range(6)]


@pytest.mark.parametrize("shape", [(24, 80), (72, 182), (200, 40), (1, 400)])
def test_a_caption_is_nearer_to_its_picture_than_to_the_next(shape):
    """Whatever the picture's shape: in rows, and without reaching the next column."""
    caption = "turn depth shear side parabola wave elastic"
    picture = np.full((*shape, 3), (0, 255, 0), np.uint8)
    drawn = sheet.grid([(picture, caption)] * 17).astype(int)
    green = (drawn[..., 1] - drawn[..., 2] > 150) & (drawn[..., 1] > 250)
    red = drawn[..., 2] - drawn[..., 1] > 20
    column = slice(0, drawn.shape[1] // 8)
    pictures, captions = (
        np.flatnonzero(mask[:, column].any(axis=1)) for mask in (green, red)
    )
    for row in captions:
        own = row - pictures[pictures < row].max()
        if (pictures > row).any():
            assert 1 <= own < pictures[pictures > row].min() - row
    assert not red[:, column].all(axis=0).any() and red.any()
    gaps = ~(green | red).any(axis=0)
    assert gaps[drawn.shape[1] // 8 - 4 : drawn.shape[1] // 8].all()


def test_contact_sheets_show_every_stage_with_a_caption_a_picture(
    tmp_path, monkeypatch
):
    captions, grid = [], sheet.grid
    monkeypatch.setattr(
        sheet,
        "grid",
        lambda cells: grid(captions.extend(c for _, c in cells) or cells),
    )
    paths = sheet.write_sheets(tmp_path, get_settings("full"), seed=1, count=9)
    assert {path.stem for path in paths} >= {
        "words", "fonts", "geometry", "colour", "background", "style", "degradation"
    }  # fmt: skip
    for path in paths:
        if path.suffix == ".png":
            assert cv2.imread(str(path)).std() > 1
    assert len(captions) == 9 * (len(paths) - 1) and all(captions)
    assert len((tmp_path / "labels.txt").read_text().splitlines()) == 90
