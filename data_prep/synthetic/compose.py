"""Puts the text on its background. Pictures are planes [3, h, w] float32, of 255."""

from types import SimpleNamespace

import cv2
import numpy as np

from data_prep.synthetic.background import blend
from data_prep.synthetic.dice import Dice
from data_prep.synthetic.fields import Fields


def draw_foreground(
    dice: Dice,
    planes: np.ndarray,
    layers: np.ndarray,
    style: str,
    *,
    text_colour: np.ndarray,
    ground_colour: np.ndarray,
    fields: Fields,
    settings: SimpleNamespace,
) -> None:
    """Draws the text, and the layer of its style below it, in place.

    Args:
      dice: where the numbers come from.
      planes: the background.
      layers: [h, w] or [h, w, 2] uint8 from `glyphs.add_style`, bent and cut.
      style: of the text; "" has no second layer.
      text_colour: BGR.
      ground_colour: BGR; colours of borders and shadows depend on it.
      fields: textures and soft fields.
      settings: the section `fill`.
    """
    height, width = layers.shape[:2]
    mask = layers if layers.ndim == 2 else layers[..., 0]
    alpha = mask * np.float32(1 / 255)
    if dice.chance(settings.worn_share):
        alpha *= np.clip(1.3 + fields.soft(dice, height, width, (0, 2)), 0.15, 1)
    if style == "hollow":
        outline = cv2.subtract(layers[..., 1], mask) * np.float32(1 / 255)
        blend(planes, outline, text_colour.tolist())
        alpha *= np.float32(0.0 if dice.chance(0.6) else dice.uniform(0.0, 0.25))
    elif style in ("border", "glow", "shadow", "extrude"):
        colour, opacity = _style_colour(dice, style, text_colour, ground_colour)
        blend(planes, layers[..., 1] * np.float32(opacity / 255), colour.tolist())
    if dice.chance(settings.faint_share):
        alpha *= np.float32(dice.uniform(*settings.faint))
    source = _fill(dice, text_colour, height, width, fields, settings)
    if style == "emboss":
        relief = layers[..., 1].astype(np.float32)
        relief = (relief - 128) * np.float32(dice.uniform(0.4, 1.2))
        blend(planes, alpha, source)
        planes += relief
    else:
        blend(planes, alpha, source)


def _style_colour(
    dice: Dice, style: str, text: np.ndarray, ground: np.ndarray
) -> tuple[np.ndarray, float]:
    """Returns colour and opacity of the layer below the text."""
    if style == "shadow":
        black = dice.chance(0.5)
        colour = ground * np.float32(0.0 if black else dice.uniform(0.1, 0.6))
        return colour, dice.uniform(0.35, 0.8)
    if style == "glow":  # lit letters shine on what is behind them
        tint = dice.vector(0, 255) - text
        return text + tint * np.float32(dice.random()), dice.uniform(0.3, 0.8)
    if dice.chance(0.5):
        colour = 255 - text
    else:
        colour = ground + (128 - ground) * np.float32(dice.uniform(0.5, 1.6))
    return np.clip(colour + dice.normals(30), 0, 255), 1.0


def _fill(
    dice: Dice,
    colour: np.ndarray,
    height: int,
    width: int,
    fields: Fields,
    settings: SimpleNamespace,
) -> list:
    """Returns what the letters are made of: three numbers or three planes."""
    kind = dice.random()
    if kind < settings.textured_share:
        strength = np.float32(dice.uniform(*settings.texture))
        surface = fields.texture(dice, height, width)
        return [c + p * strength for c, p in zip(colour, surface, strict=True)]
    if kind < settings.textured_share + settings.gradient_share:
        down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        change = dice.vector(-settings.gradient, settings.gradient)
        return [c + down * v for c, v in zip(colour, change, strict=True)]
    return colour.tolist()
