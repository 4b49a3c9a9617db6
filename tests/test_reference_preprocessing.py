"""Widths and pixels by the rules of the published implementations."""

import math

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest

from robustscanner_jax.charset import DICT90
from robustscanner_jax.models.normalise import normalise
from robustscanner_jax.preprocessing import content_width, resize_and_pad
from robustscanner_jax.reference import SOURCES

WIDEST, NARROWEST, CELL = 160, 48, 4


def mmocr_width(h, w):
    """MMOCR's rule, written a second time: clamp, then round by Python's round."""
    scaled = math.ceil(48 / h * w)
    scaled = WIDEST if scaled > WIDEST else scaled
    scaled = NARROWEST if scaled < NARROWEST else scaled
    if scaled % CELL:
        half_even = scaled // CELL + {1: 0, 2: scaled // CELL % 2, 3: 1}[scaled % CELL]
        scaled = half_even * CELL
    return scaled


def paddle_width(h, w):
    """PaddleOCR's rule, written a second time: round, then clamp."""
    scaled = math.ceil(48 / h * w)
    if scaled % CELL:
        half_even = scaled // CELL + {1: 0, 2: scaled // CELL % 2, 3: 1}[scaled % CELL]
        scaled = half_even * CELL
    return min(WIDEST, max(NARROWEST, scaled))


RULES = {"mmocr": mmocr_width, "mmocr0": mmocr_width, "paddle": paddle_width}


@pytest.mark.parametrize("source", RULES)
@hypothesis.given(
    height=st.integers(1, 2000),
    aspect=st.fractions("1/20", 20),
)
@hypothesis.settings(max_examples=500)
def test_widths_follow_the_rule_for_every_aspect_ratio(source, height, aspect):
    width = max(1, round(height * aspect))
    rule = SOURCES[source].preprocessing
    assert content_width(height, width, rule) == RULES[source](height, width)


@pytest.mark.parametrize("source", RULES)
def test_halves_are_rounded_to_even(source):
    rule = SOURCES[source].preprocessing
    assert [content_width(48, w, rule) for w in (50, 54, 58, 62)] == [48, 56, 56, 64]


@pytest.mark.parametrize("source", RULES)
@hypothesis.given(height=st.integers(1, 60), width=st.integers(1, 300))
@hypothesis.settings(max_examples=30)
def test_padding_is_black_and_content_fills_the_width(source, height, width):
    rule = SOURCES[source].preprocessing
    image = np.full((height, width, 3), 200, np.uint8)
    padded, content = resize_and_pad(image, rule)
    assert padded.shape == (48, 160, 3)
    assert (padded[:, :content] == 200).all() and not padded[:, content:].any()


@pytest.mark.reference
@pytest.mark.parametrize("source", ("mmocr", "paddle"))
def test_published_pixels_are_reproduced(source, shared):
    rule = SOURCES[source].preprocessing
    with np.load(shared(f"reference/{source}_preprocess_golden.npz")) as golden:
        raw = [golden[f"raw_{i}"] for i in range(10)]
        expected = golden["normalised"].transpose(0, 2, 3, 1)
        widths = golden["resized_width"]
        ratios = golden["valid_ratio"]
        # PaddleOCR's file holds no bytes; its normalising is exactly invertible.
        if source == "mmocr":
            published = golden["padded_u8"].transpose(0, 2, 3, 1)
        else:
            published = np.rint(expected * 127.5 + 127.5).astype(np.uint8)
    for i, image in enumerate(raw):
        padded, width = resize_and_pad(image, rule)
        assert width == widths[i], i
        assert width / WIDEST == pytest.approx(ratios[i])
        np.testing.assert_array_equal(padded, published[i], err_msg=str(i))
        batch = jnp.asarray(padded[None])
        pixels = normalise(batch, mean=rule.mean, scale=rule.scale)[0]
        np.testing.assert_allclose(pixels, expected[i], atol=1e-6, rtol=0)


@pytest.mark.reference
def test_paddles_labels_are_reproduced_after_dropping_unknown_characters(shared):
    charset = SOURCES["paddle"].charset(DICT90)
    with np.load(shared("reference/paddle_preprocess_golden.npz")) as golden:
        texts = golden["label_text"].tolist()
        kept, padded = golden["label_kept"], golden["label_padded"]
    for text, is_kept, expected in zip(texts, kept, padded, strict=True):
        known = "".join(c for c in text if not charset.unknown_characters(c))
        if is_kept:
            # Ours holds a token more: 40 inputs and 40 targets overlap in 39.
            ids = charset.to_tokens(known, max_len=40)
            assert ids[:40] == expected.tolist() and ids[40] == charset.pad_id
        else:
            assert not known or len(known) >= 39


@pytest.mark.reference
@pytest.mark.parametrize("source", ("mmocr", "paddle"))
def test_targets_are_the_published_ones(source, shared):
    kind = SOURCES[source]
    charset = kind.charset(DICT90)
    with np.load(shared(f"reference/{source}_golden.npz")) as golden:
        texts, targets = golden["target_text"].tolist(), golden["target_padded"]
    for text, expected in zip(texts, targets, strict=True):
        if source == "paddle":  # drops what MMOCR calls unknown
            text = "".join(c for c in text if not charset.unknown_characters(c))
        ids = [charset.end_id, *charset.encode(text), charset.end_id]
        ids += [charset.pad_id] * kind.max_len
        assert ids[: kind.max_len] == expected.tolist()
