"""Colours of text and background. All colours are BGR float32, [3], of 255."""

from types import SimpleNamespace

import cv2
import numpy as np

from data_prep.synthetic.dice import Dice

_HUES = (0.0, 0.0, 0.0, 0.1, 0.14, 0.38, 0.58, 0.6, 0.63)  # of paints and prints
_LUMA = (0.114, 0.587, 0.299)  # of blue, green, red


def grey(colour: np.ndarray) -> float:
    """Returns the luminance of a colour, of 255."""
    blue, green, red = colour.tolist()
    return _LUMA[0] * blue + _LUMA[1] * green + _LUMA[2] * red


def draw_pair(dice: Dice, settings: SimpleNamespace) -> tuple[np.ndarray, np.ndarray]:
    """Returns the colours of text and background, far enough apart in luminance.

    Three families: `natural` (muted colours in one light, as in photographs), `sign`
    (near black or white on a colour, or the reverse) and `free` (any two).
    """
    text, ground = _FAMILIES[dice.kind(settings.shares)](dice)
    if dice.chance(0.5):
        text, ground = ground, text
    low = dice.chance(settings.low_share)
    wanted = dice.uniform(*(settings.low_contrast if low else settings.contrast))
    return _separate(text, ground, wanted)


def _separate(
    text: np.ndarray, ground: np.ndarray, wanted: float
) -> tuple[np.ndarray, np.ndarray]:
    """Moves the luminances apart until they differ by `wanted`, if they do not yet."""
    text_grey, ground_grey = grey(text), grey(ground)
    gap = text_grey - ground_grey
    if abs(gap) >= wanted:
        return text, ground
    up = gap > 0
    top, bottom = (text_grey, ground_grey) if up else (ground_grey, text_grey)
    # Both move by half, and what one lacks in room the other gives.
    missing = wanted - abs(gap)
    rise = min(missing / 2, 255 - top)
    fall = min(missing - rise, bottom)
    rise = missing - fall
    text = _shift(text, rise if up else -fall)
    ground = _shift(ground, -fall if up else rise)
    return text, ground


def _shift(colour: np.ndarray, change: float) -> np.ndarray:
    """Changes the luminance towards black or white, which keeps the hue."""
    level = grey(colour)
    if change >= 0:
        share = change / max(255 - level, 1e-3)
        return colour + (255 - colour) * np.float32(min(1.0, share))
    return colour * np.float32(max(0.0, 1 + change / max(level, 1e-3)))


def from_hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """Returns a colour from hue, saturation and value in [0, 1]."""
    sector = (hue % 1.0) * 6
    chroma = value * saturation
    middle = chroma * (1 - abs(sector % 2 - 1))
    red, green, blue = (
        (chroma, middle, 0.0),
        (middle, chroma, 0.0),
        (0.0, chroma, middle),
        (0.0, middle, chroma),
        (middle, 0.0, chroma),
        (chroma, 0.0, middle),
    )[int(sector) % 6]
    low = value - chroma
    return np.array([blue + low, green + low, red + low], np.float32) * np.float32(255)


def _natural(dice: Dice) -> tuple[np.ndarray, np.ndarray]:
    """Muted colours, related in hue, under one tinted light."""
    hue = dice.random()
    # Paints, wood, stone and skin are warm; skies and metal are blue.
    if dice.chance(0.75):
        hue = dice.normal(0.09, 0.04) if dice.chance(0.6) else dice.normal(0.6, 0.06)
    other = hue + dice.normal(0, 0.08) if dice.chance(0.65) else dice.random()
    dark = from_hsv(other, dice.random() ** 1.4, dice.uniform(0.02, 0.5))
    bright = from_hsv(hue, 0.75 * dice.random() ** 1.8, dice.uniform(0.4, 1.0))
    light = 1 + dice.normals(0.07)
    light *= np.float32(1.0 if dice.chance(0.7) else dice.uniform(0.45, 0.95))
    dark, bright = dark * light, bright * light
    return np.clip(dark, 0, 255), np.clip(bright, 0, 255)


def _sign(dice: Dice) -> tuple[np.ndarray, np.ndarray]:
    """Near black or near white against a saturated colour, grey, white or black."""
    if dice.chance(0.30):
        near_black = np.float32(dice.uniform(0, 45)) + dice.normals(5)
        near_white = np.float32(dice.uniform(205, 255)) + dice.normals(5)
        return np.clip(near_black, 0, 255), np.clip(near_white, 0, 255)
    saturation = dice.uniform(0.4, 1.0) if dice.chance(0.65) else 0.0
    colour = from_hsv(_hue(dice), saturation, dice.uniform(0.15, 1.0))
    level = grey(colour)
    bright = level < 110 or (level < 150 and dice.chance(0.5))
    ink = dice.uniform(200, 255) if bright else dice.uniform(0, 55)
    ink = np.float32(ink) + dice.normals(6)
    return colour, np.clip(ink, 0, 255)


def _hue(dice: Dice) -> float:
    """Returns a hue in which reds, oranges, greens and blues are frequent."""
    if dice.chance(0.3):
        return dice.random()
    return dice.pick(_HUES) + dice.normal(0, 0.03)


def _free(dice: Dice) -> tuple[np.ndarray, np.ndarray]:
    first = from_hsv(_hue(dice), dice.random(), dice.random())
    second = from_hsv(dice.random(), 0.8 * dice.random(), dice.random())
    return first, second


_FAMILIES = {"natural": _natural, "sign": _sign, "free": _free}


def to_grey(planes: np.ndarray) -> np.ndarray:
    """Returns the luminance [h, w] float32 of planes [3, h, w] float32."""
    result = cv2.addWeighted(planes[0], _LUMA[0], planes[1], _LUMA[1], 0.0)
    return cv2.scaleAdd(planes[2], _LUMA[2], result)
