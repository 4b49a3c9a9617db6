"""Pictures of samples, attention and training."""

import json

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from training import noise_image

from robustscanner_jax import report
from robustscanner_jax.reading import Reading
from robustscanner_jax.report import (
    RIGHT,
    WRONG,
    Sample,
    draw_attention,
    draw_samples,
    main,
)


@pytest.fixture
def titles(monkeypatch):
    """Returns the titles that are drawn, with their colours."""
    found, set_title = [], Axes.set_title

    def watched(self, label, *args, **kwargs):
        found.append((label, kwargs.get("color")))
        return set_title(self, label, *args, **kwargs)

    monkeypatch.setattr(Axes, "set_title", watched)
    return found


def sample(label="bad", text="bad", right=True, width=40):
    return Sample(noise_image(0, 16, width), label, text, 0.875, right)


def test_right_words_are_green_and_wrong_ones_red_with_their_label(tmp_path, titles):
    path = tmp_path / "samples.png"
    draw_samples([sample(), sample("bed", "bad", right=False)], path)
    assert titles == [("bad (88%)", RIGHT), ("bad (88%)\nis bed", WRONG)]
    picture = cv2.imread(str(path))
    assert picture.shape[0] > 50 and picture.std() > 1


@pytest.mark.parametrize("count", [0, 1, 5, 6, 40])
def test_any_number_of_samples_is_a_picture(tmp_path, count):
    path = tmp_path / "samples.png"
    draw_samples([sample(width=8 + 8 * (i % 5)) for i in range(count)], path)
    assert cv2.imread(str(path)) is not None


@pytest.mark.parametrize("text", ["$5$", "a$b", "$\\frac$", "x_1^2", "", "\\"])
def test_texts_are_drawn_as_they_are_and_never_as_formulas(tmp_path, text):
    draw_samples([sample(text, text, right=False)], tmp_path / "samples.png")


def test_pictures_of_the_user_stay_open(tmp_path):
    figure = plt.figure()
    draw_samples([sample()], tmp_path / "samples.png")
    assert plt.fignum_exists(figure.number)
    plt.close(figure)


@pytest.fixture
def attention(tmp_path):
    """Returns a function: image, content width, text -> the picture, BGR.

    `stray` is the attention of the last column of eight.
    """

    def draw(image, width, text, stray=0.0, note=""):
        steps, path = len(text) + 1, tmp_path / "attention.png"
        spread = np.random.default_rng(0).dirichlet(np.ones(16), steps)
        weights = spread.reshape(steps, 2, 8)
        weights[..., 7] = stray
        reading = Reading(text, 0.875, (0.9,) * len(text))
        shares = np.linspace(0, 1, steps)
        draw_attention(image, width, reading, weights, weights, shares, path, note=note)
        return cv2.imread(str(path))

    return draw


def test_attention_is_a_row_a_character_and_one_for_the_end(attention):
    tall, flat = (attention(noise_image(0, 16, 32), 32, text) for text in ("a$b", ""))
    assert tall.shape[0] > 2 * flat.shape[0]


@pytest.mark.parametrize("width", [8, 20, 56])
def test_neither_pixels_nor_attention_of_the_padding_are_drawn(attention, width):
    image = np.full((16, 64, 3), 200, np.uint8)
    other = image.copy()
    other[:, width:] = 0
    drawn = attention(image, width, "ab")
    np.testing.assert_array_equal(attention(other, width, "ab", stray=9.0), drawn)
    assert attention(image, 64, "ab").shape[1] > drawn.shape[1]


def test_the_text_and_its_confidence_stand_above_the_attention(attention, monkeypatch):
    titles = []
    monkeypatch.setattr(
        report.Figure, "suptitle", lambda self, text, **_: titles.append(text)
    )
    for text in ("a$b", ""):
        attention(noise_image(0, 16, 32), 32, text)
    attention(noise_image(0, 16, 32), 32, "a", note="closer")
    assert titles == [r"a\$b (88%)", "nothing read (88%)", "a (88%, closer)"]


@pytest.mark.parametrize("text", ["a", "a" * 25])
def test_the_text_stands_clear_of_the_heads_below_it(attention, text):
    head = attention(noise_image(0, 16, 64), 64, text)[:50]
    inked = (head < 128).any(axis=(1, 2)).astype(int)
    assert (np.diff(inked, prepend=0) == 1).sum() == 2


def write_metrics(folder, *lines):
    text = "".join(
        f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines
    )
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture
def drawn(monkeypatch):
    """Returns x and y of the curves that are drawn from now on, by their label."""
    curves, plot = {}, Axes.plot

    def watched(self, x, y, *args, **kwargs):
        curves[kwargs.get("label")] = list(x), list(y)
        return plot(self, x, y, *args, **kwargs)

    monkeypatch.setattr(Axes, "plot", watched)
    return curves


def test_the_command_draws_the_curves_of_a_run(tmp_path, drawn, capsys):
    write_metrics(
        tmp_path,
        {"step": 1, "loss": 3.0, "token_accuracy": 0.25},
        {"step": 2, "loss": None, "token_accuracy": None},
        {"step": 2, "accuracy/dev": 0.25},
        {"step": 3, "loss": 1.0, "token_accuracy": 0.5},
        {"step": 3, "accuracy/dev": 0.5},
    )
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'curves.png'}\n"
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 1
    assert drawn["tokens in training"] == ([1, 3], [25, 50])
    assert drawn["dev"] == ([2, 3], [25, 50])


def test_a_curve_that_jumps_is_drawn_with_its_mean(tmp_path, drawn):
    lines = [
        {"step": 10 * i, "loss": 1.0, "token_accuracy": 0.5 + 0.2 * (i % 3 - 1)}
        for i in range(41)
    ]
    write_metrics(tmp_path, *lines)
    assert main([str(tmp_path)]) == 0
    steps, means = drawn["tokens in training"]
    assert steps == list(range(10, 400, 10))  # of three values, at the middle one
    np.testing.assert_allclose(means, 50)


def test_a_step_that_was_trained_again_counts_as_the_last_time(tmp_path):
    write_metrics(
        tmp_path,
        {"step": 2, "loss": 2.0},
        {"step": 4, "loss": 9.0},
        '{"step": 6, "lo',  # here the process was killed
        {"step": 4, "loss": 1.0},
        {"step": 4, "accuracy/dev": 0.5},
    )
    assert report.read_metrics(tmp_path) == [
        {"step": 2, "loss": 2.0},
        {"step": 4, "loss": 1.0, "accuracy/dev": 0.5},
    ]


def test_what_is_no_run_or_has_logged_nothing_is_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.endswith("run folder, it has no metrics.jsonl\n")
    write_metrics(tmp_path)
    assert main([str(tmp_path)]) == 1
    assert "nothing is logged yet" in capsys.readouterr().err
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize("line", [{"accuracy/dev": 1.0}, {"loss": None}])
def test_a_run_without_mistakes_or_losses_has_curves(tmp_path, line):
    write_metrics(tmp_path, {"step": 1} | line, {"step": 2} | line)
    assert main([str(tmp_path)]) == 0
