"""What lies behind the text. Pictures are planes [3, h, w] float32, of 255."""

from types import SimpleNamespace

import cv2
import numpy as np

from data_prep.synthetic.dice import Dice
from data_prep.synthetic.fields import Fields


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
