"""Pictures of samples, attention and training."""

import json

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from training import noise_image

from robustscanner_jax.report import (
    RIGHT,
    WRONG,
    Sample,
    draw_attention,
    draw_curves,
    draw_samples,
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


def test_attention_is_a_row_a_character_and_one_for_the_end(tmp_path):
    weights = np.random.default_rng(0).dirichlet(np.ones(16), 4).reshape(4, 2, 8)
    share = np.array([0.1, 0.5, 0.9, 0.3])
    path = tmp_path / "attention.png"
    draw_attention(noise_image(0, 16, 32), "a$b", weights, weights, share, path)
    short = tmp_path / "short.png"
    draw_attention(
        noise_image(0, 16, 32), "", weights[:1], weights[:1], share[:1], short
    )
    tall, flat = (cv2.imread(str(p)).shape[0] for p in (path, short))
    assert tall > 2 * flat


def test_curves_are_drawn_from_the_lines_of_the_metrics(tmp_path):
    lines = [
        {"step": 1, "loss": 3.0, "token_accuracy": 0.1},
        {"step": 2, "loss": None, "token_accuracy": 0.1},
        {"step": 2, "accuracy/dev": 0.25},
        {"step": 3, "loss": 1.0, "token_accuracy": 0.5},
        {"step": 3, "accuracy/dev": 0.5},
    ]
    draw_curves(json.loads(json.dumps(lines)), tmp_path / "curves.png")
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 1
