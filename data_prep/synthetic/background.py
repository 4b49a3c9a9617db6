"""What lies behind the text. Pictures are planes [3, h, w] float32, of 255."""

import math
from types import SimpleNamespace

import cv2
import numpy as np

from data_prep.synthetic import glyphs
from data_prep.synthetic.dice import Dice
from data_prep.synthetic.fields import Fields
from data_prep.synthetic.fonts import Fonts


def draw_background(
    dice: Dice,
    colour: np.ndarray,
    height: int,
    width: int,
    fields: Fields,
    settings: SimpleNamespace,
) -> np.ndarray:
    """Returns a surface [3, height, width] float32 around one colour.

    Kinds: `solid`, `gradient`, `soft` stains, a painted `texture`, `stripes`; any of
    them may have the edge of a panel or a printed line.
    """
    planes = np.empty((3, height, width), np.float32)
    planes[:] = colour[:, None, None]
    kind = dice.kind(settings.shares)
    if kind == "gradient":
        planes += gradient(dice, height, width) * _column(
            dice.vector(0, settings.gradient)
        )
    elif kind == "soft":
        field = fields.soft(dice, height, width)
        planes += field * np.float32(dice.uniform(*settings.soft))
    elif kind == "texture":
        strong = dice.chance(settings.strong_share)
        span = settings.strong_texture if strong else settings.texture
        strength = dice.uniform(*span)
        for plane, surface in zip(
            planes, fields.texture(dice, height, width), strict=True
        ):
            cv2.scaleAdd(surface, strength, plane, plane)
    elif kind == "stripes":
        change = _column(dice.normals(settings.stripes))[..., 0]
        period = dice.integer(3, 18)
        if dice.chance(0.5):
            planes[:, :, (np.arange(width) // period) % 2 == 0] += change[..., None]
        else:
            planes[:, (np.arange(height) // period) % 2 == 0] += change[..., None]
    if dice.chance(settings.edge_share):
        _add_edge(dice, planes)
    if dice.chance(settings.rule_share):
        _add_rule(dice, planes)
    return planes


def gradient(dice: Dice, height: int, width: int) -> np.ndarray:
    """Returns a plane [h, w] in [-2, 2] that rises in a random direction."""
    across = np.linspace(-1, 1, width, dtype=np.float32) * dice.uniform(-1, 1)
    down = np.linspace(-1, 1, height, dtype=np.float32) * dice.uniform(-1, 1)
    return (across[None] + down[:, None]).astype(np.float32)


def blend(planes: np.ndarray, alpha: np.ndarray, source: np.ndarray | list) -> None:
    """Covers `planes` in place: alpha [h, w] in [0, 1], source a colour or planes."""
    for plane, value in zip(planes, source, strict=True):
        plane += alpha * (value - plane)


def _column(colour: np.ndarray) -> np.ndarray:
    return colour[:, None, None]


def _add_edge(dice: Dice, planes: np.ndarray) -> None:
    """Another surface along the top, the bottom or a side."""
    _, height, width = planes.shape
    change = _column(dice.normals(50))
    side, share = dice.below(4), dice.uniform(0.02, 0.12)
    if side == 0:
        planes[:, : int(height * share)] += change
    elif side == 1:
        planes[:, int(height * (1 - share)) :] += change
    elif side == 2:
        planes[:, :, : int(height * share)] += change
    else:
        planes[:, :, width - int(height * share) :] += change


def _add_rule(dice: Dice, planes: np.ndarray) -> None:
    """A printed line, above or below where the text will be."""
    height = planes.shape[1]
    thick = max(1, int(height * dice.uniform(0.02, 0.06)))
    share = dice.uniform(0.0, 0.06) if dice.chance(0.5) else dice.uniform(0.92, 1.0)
    top = min(height - thick, int(height * share))
    planes[:, top : top + thick] = _column(dice.vector(0, 255))


def add_neighbour(
    dice: Dice,
    planes: np.ndarray,
    *,
    text: str,
    text_height: float,
    angle: float,
    colour: np.ndarray,
    fonts: Fonts,
) -> None:
    """Puts other text beside the crop, cut off by its border, in place.

    Args:
      dice: where the numbers come from.
      planes: the background.
      text: what the neighbour says.
      text_height: height of the main text, pixels.
      angle: rotation of the main text, radians; the neighbour shares it.
      colour: of the main text; the neighbour mostly shares it.
      fonts: a font of its own is drawn.
    """
    drawn = fonts.draw(dice, text, 32)
    mask = glyphs.plain_mask(text, drawn[1]) if drawn else None
    if mask is None:
        return
    _, height, width = planes.shape
    scale = dice.uniform(0.7, 1.2) * text_height / mask.shape[0]
    half_width = 0.5 * scale * mask.shape[1]
    half_height = 0.5 * scale * mask.shape[0]
    if dice.chance(0.28):  # beside: only its end shows
        x = width / 2 + dice.pick((-1, 1)) * (
            width / 2 + half_width - dice.uniform(0.02, 0.12) * height
        )
        y = height / 2 + dice.uniform(-0.1, 0.1) * height
    else:  # the line above or below
        x = width / 2 + dice.uniform(-0.6, 0.6) * width
        y = height / 2 + dice.pick((-1, 1)) * (
            height / 2 + half_height - dice.uniform(0.03, 0.16) * height
        )
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    middle_x, middle_y = mask.shape[1] / 2, mask.shape[0] / 2
    move = np.array(
        [
            [cos, -sin, x - cos * middle_x + sin * middle_y],
            [sin, cos, y - sin * middle_x - cos * middle_y],
        ],
        np.float32,
    )
    placed = cv2.warpAffine(mask, move, (width, height))
    own = dice.vector(0, 255) if dice.chance(0.3) else colour
    blend(planes, placed * np.float32(1 / 255), own.tolist())
