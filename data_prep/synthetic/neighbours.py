"""Lines and words around the text, on the same paper: what loose crops show of them.

A crop is upright whatever its text does, so the box of a word that climbs holds parts
of the lines above and below it. Neighbours are laid out where the text is straight,
and bent and cut with it.
"""

import dataclasses
import math
import string
from types import SimpleNamespace

import cv2
import numpy as np
from PIL import ImageFont

from data_prep.synthetic import geometry, glyphs, words
from data_prep.synthetic.dice import Dice
from data_prep.synthetic.fonts import Fonts
from data_prep.synthetic.vocabulary import Vocabulary

_FARTHEST = 2.5  # font sizes around the text beyond which nothing is laid out
_MOST_WORDS = 3  # of a line
_ALIGNMENTS = (0.0, 0.5, 1.0)  # left, middle and right edges in one line


@dataclasses.dataclass(frozen=True)
class Page:
    """The paper that a text stands on, as far as its picture shows it."""

    maps: tuple[np.ndarray, np.ndarray]  # [h, w] float32, from `geometry.inverse_map`
    scale: tuple[float, float]  # pixels of the maps for a pixel of the font, x and y
    ink: tuple[int, int]  # height and width of the straight text, pixels of the font
    font: ImageFont.FreeTypeFont  # of the text


def draw_neighbours(
    dice: Dice,
    text: str,
    page: Page,
    *,
    vocabulary: Vocabulary,
    fonts: Fonts,
    word_settings: SimpleNamespace,
    settings: SimpleNamespace,
) -> np.ndarray:
    """Returns the coverage [h, w] uint8 of all that stands around the text.

    Args:
      dice: where the numbers come from.
      text: of the picture; most neighbours are written in capitals if it is.
      page: where the text is.
      vocabulary: what the neighbours say.
      fonts: where other fonts come from; most neighbours have that of the text.
      word_settings: the section `words`.
      settings: the section `neighbours`.
    """

    def write(count: int) -> str:
        drawn = [vocabulary.draw(dice, word_settings) for _ in range(count)]
        line = " ".join(drawn)
        if dice.chance(settings.same_case_share) and not text.islower():
            return line.upper() if text.isupper() else string.capwords(line)
        return words.apply_case(dice, line, word_settings)

    font, size = page.font, 1.0
    if dice.chance(settings.other_font_share):
        found = fonts.draw(dice, text, round(font.size))
        font = found[1] if found else font
    if dice.chance(settings.other_size_share):
        size = math.exp(dice.uniform(*map(math.log, settings.sizes)))
    reach = _reach(page)
    canvas = np.zeros((2 * max(reach[0]), 2 * max(reach[1])), np.uint8)
    alignment = dice.pick(_ALIGNMENTS)
    gap = dice.uniform(*settings.gap) * page.font.size
    space = dice.uniform(*settings.space) * page.font.size + 1.5 * _tracking(text, page)
    for side, vertical, horizontal in zip((-1, 1), *reach, strict=True):
        near = 0.5 * page.ink[0] + gap
        if not dice.chance(settings.line_share):
            near = math.inf
        while near < vertical:
            count = dice.integer(1, _MOST_WORDS)
            line = _resized(glyphs.plain_mask(write(count), font), size)
            if line is None:
                break
            shift = alignment if dice.chance(0.7) else dice.random()
            _place_line(canvas, line, page.ink, side * near, shift)
            near += line.shape[0] + gap
        near = 0.5 * page.ink[1] + space
        if dice.chance(settings.word_share) and near < horizontal:
            _place_word(canvas, text, write(1), page, side * near)
    canvas, scale = glyphs.shrink(canvas, page.scale)
    return geometry.warp(canvas, page.maps, scale)


def _reach(page: Page) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns how far the picture sees from the middle of the text, font pixels.

    Above and below, left and right; at least to the edge of the text.
    """
    sides = []
    for plane, scale, ink in zip(page.maps, page.scale, page.ink[::-1], strict=True):
        farthest = 0.5 * ink + _FARTHEST * page.font.size
        low, high, _, _ = cv2.minMaxLoc(plane)
        seen = [
            math.ceil(min(max(s / scale, 0.5 * ink), farthest)) for s in (-low, high)
        ]
        sides.append((seen[0], seen[1]))
    return sides[1], sides[0]


def _tracking(text: str, page: Page) -> float:
    """Returns by how much the letters of the text stand apart, font pixels."""
    left, _, right, _ = page.font.getbbox(text)
    return max(0.0, page.ink[1] - (right - left)) / max(1, len(text) - 1)


def _resized(mask: np.ndarray | None, size: float) -> np.ndarray | None:
    if mask is None or size == 1.0:
        return mask
    shape = max(1, round(mask.shape[1] * size)), max(1, round(mask.shape[0] * size))
    return cv2.resize(mask, shape, interpolation=cv2.INTER_AREA)


def _place_line(
    canvas: np.ndarray,
    line: np.ndarray,
    ink: tuple[int, int],
    near: float,
    shift: float,
) -> None:
    """Adds a line whose nearer edge is `near` below the middle, above if negative."""
    top = canvas.shape[0] / 2 + (near if near > 0 else near - line.shape[0])
    left = canvas.shape[1] / 2 - 0.5 * ink[1] + shift * (ink[1] - line.shape[1])
    _place(canvas, line, round(left), round(top))


def _place_word(
    canvas: np.ndarray, text: str, word: str, page: Page, near: float
) -> None:
    """Adds a word on the line of the text, `near` right of its middle, or left."""
    mask = glyphs.plain_mask(word, page.font)
    if mask is None:
        return
    _, text_top, _, text_bottom = page.font.getbbox(text, anchor="ls")
    _, word_top, _, _ = page.font.getbbox(word, anchor="ls")
    baseline = canvas.shape[0] / 2 - (text_top + text_bottom) / 2
    left = canvas.shape[1] / 2 + (near if near > 0 else near - mask.shape[1])
    _place(canvas, mask, round(left), round(baseline + word_top))


def _place(canvas: np.ndarray, mask: np.ndarray, left: int, top: int) -> None:
    """Adds what of a mask lies on the canvas, in place."""
    rows, columns = canvas.shape
    y0, y1 = max(0, top), min(rows, top + mask.shape[0])
    x0, x1 = max(0, left), min(columns, left + mask.shape[1])
    if y0 < y1 and x0 < x1:
        part = canvas[y0:y1, x0:x1]
        np.maximum(part, mask[y0 - top : y1 - top, x0 - left : x1 - left], out=part)
