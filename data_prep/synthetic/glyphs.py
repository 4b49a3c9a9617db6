"""Draws the letters: the mask of a text, and the layer of its style."""

import math
from types import SimpleNamespace

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_prep.synthetic.dice import Dice

_SQUARE = np.ones((2, 2), np.uint8)


def draw_mask(
    dice: Dice, text: str, font: ImageFont.FreeTypeFont, settings: SimpleNamespace
) -> np.ndarray | None:
    """Returns the coverage of a text [h, w] uint8, cut to its ink, or None if empty.

    Args:
      dice: where the numbers come from.
      text: what to draw, on one line.
      font: the font at the wanted size.
      settings: the section `glyphs`.
    """
    if len(text) > 1 and dice.chance(settings.spaced_share):
        mask = _spaced(dice, text, font, settings)
    else:
        mask = plain_mask(text, font)
    if mask is None or min(mask.shape) < 3:
        return None
    weight = dice.random()
    if weight < settings.bold_share:
        mask = cv2.dilate(mask, _SQUARE)
    elif weight < settings.bold_share + settings.thin_share:
        mask = cv2.erode(mask, _SQUARE)
    return mask


def plain_mask(text: str, font: ImageFont.FreeTypeFont) -> np.ndarray | None:
    """Returns the coverage of a text as the font sets it, or None if empty."""
    core = font.getmask(text)
    width, height = core.size
    if not width or not height:
        return None
    image = Image.new("L", core.size)
    image.im.paste(core, (0, 0, width, height))  # numpy reads `core` pixel by pixel
    return np.array(image)


def _spaced(
    dice: Dice, text: str, font: ImageFont.FreeTypeFont, settings: SimpleNamespace
) -> np.ndarray | None:
    """Lays out one character at a time: tracking, and a baseline that jumps."""
    size = font.size
    wide = dice.chance(settings.wide_share)
    tracking = dice.uniform(*(settings.wide_tracking if wide else settings.tracking))
    jitter = 0.0
    if dice.chance(settings.jitter_share):
        jitter = dice.uniform(0, settings.jitter) * size
    room = 0.5 * size
    lefts, x = [], room  # letters may reach out on the left, too
    for character in text:
        lefts.append(x)
        x += font.getlength(character) + tracking * size
    deepest = max(font.getbbox(text)[3], sum(font.getmetrics()))
    canvas = Image.new("L", (int(x + 1.5 * size), int(deepest + 2 * room)), 0)
    draw = ImageDraw.Draw(canvas)
    for character, left in zip(text, lefts, strict=True):
        top = room + (dice.uniform(-jitter, jitter) if jitter else 0.0)
        draw.text((left, top), character, 255, font=font)
    mask = np.asarray(canvas)
    left, top, width, height = cv2.boundingRect(mask)
    if not width or not height:
        return None
    return mask[top : top + height, left : left + width].copy()


def scale_and_pad(
    mask: np.ndarray, scale: tuple[float, float]
) -> tuple[np.ndarray, tuple[float, float]]:
    """Returns a mask as `shrink` does, with room around it for bending and style."""
    mask, scale = shrink(mask, scale)
    room = int(mask.shape[0] * 0.35) + 4
    padded = cv2.copyMakeBorder(mask, room, room, room, room, cv2.BORDER_CONSTANT)
    return padded, scale


def shrink(
    mask: np.ndarray, scale: tuple[float, float]
) -> tuple[np.ndarray, tuple[float, float]]:
    """Returns the mask, and what is left to scale it by.

    A mask that shrinks much is made smaller here, by averaging: the later bending
    looks at four pixels only. 1.25 is kept for it, which keeps edges crisp.
    """
    if max(scale) < 0.75:
        width = max(2, round(mask.shape[1] * scale[0] * 1.25))
        height = max(2, round(mask.shape[0] * scale[1] * 1.25))
        scale = (
            scale[0] * mask.shape[1] / width,
            scale[1] * mask.shape[0] / height,
        )
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
    return mask, scale


def add_style(
    dice: Dice,
    mask: np.ndarray,
    style: str,
    text_height: float,
    settings: SimpleNamespace,
) -> np.ndarray:
    """Returns [h, w, 2] uint8: the mask, and the layer behind it for a style.

    `mask` already has the room that the layer needs around it. Styles: `border` and
    `hollow` (a wider shape), `glow` (wider and blurred), `shadow` (moved, mostly
    blurred), `extrude` (drawn out sideways), `emboss` (128 + light minus shade).
    """
    thickness = max(1, round(dice.uniform(*settings.thickness) * text_height))
    if style in ("border", "hollow", "glow"):
        side = 2 * thickness + 1
        element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        wider = cv2.dilate(mask, element)
        if style == "glow":
            wider = cv2.GaussianBlur(wider, (0, 0), dice.uniform(0.5, 1.0) * thickness)
        return cv2.merge([mask, wider])
    angle = dice.uniform(0, 2 * math.pi)
    if style == "emboss":
        light = _moved(mask, angle, 0.5 + 0.4 * thickness)
        shade = _moved(mask, angle + math.pi, 0.5 + 0.4 * thickness)
        relief = cv2.addWeighted(light, 0.5, shade, -0.5, 128)
        return cv2.merge([mask, relief])
    if style == "shadow":
        layer = _moved(mask, angle, 1.3 * thickness)
        if dice.chance(0.65):
            blur = dice.uniform(0.5, max(0.6, thickness))
            layer = cv2.GaussianBlur(layer, (0, 0), blur)
        return cv2.merge([mask, layer])
    layer = mask.copy()
    for step in range(1, thickness + 2):
        np.maximum(layer, _moved(mask, angle, step), out=layer)
    return cv2.merge([mask, layer])


def _moved(mask: np.ndarray, angle: float, distance: float) -> np.ndarray:
    dx, dy = math.cos(angle) * distance, math.sin(angle) * distance
    move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
    return cv2.warpAffine(mask, move, (mask.shape[1], mask.shape[0]))
