"""Bends the text: every change of shape in one inverse map and one `cv2.remap`."""

import dataclasses
import math
from types import SimpleNamespace

import cv2
import numpy as np

from data_prep.synthetic.dice import Dice
from data_prep.synthetic.fields import Fields

CELL = 6  # pixels between the points where the map is computed
_EDGE = 0.48  # room that is mapped around the text, of the shorter side
_ASIDE = 1.2  # margins left and right, of those above and below
_WIDE_ASIDE = 0.6  # the same for wide boxes
_OFF_CENTRE = 0.25  # by how much each side of a wide box is off the margin drawn for it


@dataclasses.dataclass(frozen=True)
class Bend:
    """The shape of one picture. Lengths are pixels, angles radians."""

    angle: float = 0.0  # rotation
    projective: tuple[float, float] = (0.0, 0.0)  # over the whole width and height
    shear: float = 0.0
    side: float = 0.0  # shear of the line: letters stay upright while it climbs
    squeeze: float = 1.0  # width that is left, as seen from the side
    curve: float = 0.0  # angle of the arc that the text spans; its sign says up, down
    true_arc: bool = True  # letters turn with the arc, or stay upright
    wave: tuple[float, float, float] | None = None  # amplitude, period, phase
    elastic: float = 0.0  # amplitude

    @property
    def flat(self) -> bool:
        """Whether nothing is bent."""
        return self == Bend()


def draw_bend(
    dice: Dice, width: float, height: float, characters: int, settings: SimpleNamespace
) -> Bend:
    """Returns a random bend for a text of this size, pixels."""
    if dice.chance(settings.flat_share):
        return Bend()
    angle = 0.0
    turn = dice.random()
    if turn < settings.rotation_share:
        limit = 5 * settings.rotation
        angle = dice.normal(0.0, settings.rotation)
        angle = max(-limit, min(limit, angle))
    elif turn < settings.rotation_share + settings.steep_share:
        angle = dice.uniform(-settings.steep, settings.steep)
    projective = (0.0, 0.0)
    if dice.chance(settings.projective_share):
        along, across = settings.projective
        projective = (dice.uniform(-along, along), dice.uniform(-across, across))
    shear = 0.0
    if dice.chance(settings.shear_share):
        shear = dice.uniform(-settings.shear, settings.shear)
    side, squeeze = 0.0, 1.0
    if abs(angle) < 10 and dice.chance(settings.side_share):
        side = dice.uniform(-settings.side, settings.side)
        squeeze = 1 - settings.squeeze * abs(side) * dice.random()
    curve, true_arc, wave = 0.0, True, None
    if characters > 2 and dice.chance(settings.curve_share):
        curve = dice.uniform(*settings.curve)
        # An arc tighter than the letters are tall would fold them.
        curve = min(curve, 0.9 * width / height)
        curve *= 1 if dice.chance(0.65) else -1
        true_arc = dice.chance(settings.arc_share)
    elif dice.chance(settings.wave_share):
        amplitude = dice.uniform(*settings.wave) * height
        wave = (amplitude, width * dice.uniform(0.5, 1.6), dice.uniform(0, 6.28))
    elastic = 0.0
    if dice.chance(settings.elastic_share):
        elastic = dice.uniform(*settings.elastic) * height
    return Bend(
        angle=math.radians(angle),
        projective=projective,
        shear=shear,
        side=side,
        squeeze=squeeze,
        curve=curve,
        true_arc=true_arc,
        wave=wave,
        elastic=elastic,
    )


def draw_room(dice: Dice, settings: SimpleNamespace) -> float:
    """Returns the margin of a wide box, of the shorter side of the text; 0: not wide.

    Args:
      dice: where the numbers come from.
      settings: the section `box`.
    """
    if settings.wide_share and dice.chance(settings.wide_share):
        return dice.uniform(*settings.wide)
    return 0.0


def inverse_map(
    dice: Dice,
    bend: Bend,
    width: float,
    height: float,
    fields: Fields,
    room: float = 0.0,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns where each pixel of the bent picture lies in the straight text.

    Two maps [h, w] float32, x and y, in pixels from the middle of a text of `width`
    and `height`. The maps hold the whole text and a margin of 0.48 of its shorter
    side, or what a wide box needs (`room`, from `draw_room`). None when a bend is so
    strong that the text leaves the canvas.
    """
    edge = max(_EDGE, (1 + _OFF_CENTRE) * room)
    extra = width * abs(bend.curve) / 5.5
    cos, sin = abs(math.cos(bend.angle)), abs(math.sin(bend.angle))
    reach = height + extra
    around = (0.9 + edge - _EDGE) * height + 8
    half_x = 0.75 * (width * cos + reach * (sin + abs(bend.shear))) + around
    half_y = 0.75 * (reach * cos + width * (sin + abs(bend.side))) + around
    columns, rows = int(2 * half_x / CELL) + 2, int(2 * half_y / CELL) + 2
    x = (np.arange(columns, dtype=np.float32) - (columns - 1) / 2) * CELL
    y = (np.arange(rows, dtype=np.float32) - (rows - 1) / 2)[:, None] * CELL
    x, y = _unbend(x, y, bend, width, height, extra)
    if bend.elastic:
        x = x + bend.elastic * fields.soft(dice, rows, columns)
        y = y + bend.elastic * fields.soft(dice, rows, columns)
    x = np.ascontiguousarray(np.broadcast_to(x, (rows, columns)), np.float32)
    y = np.ascontiguousarray(np.broadcast_to(y, (rows, columns)), np.float32)

    inside = (np.abs(x) < width / 2 + CELL) & (np.abs(y) < height / 2 + CELL)
    left, top, across, down = cv2.boundingRect(inside.view(np.uint8))
    if not across or min(left, top) == 0:
        return None
    if left + across == columns or top + down == rows:
        return None
    margin = 2 + math.ceil(edge * min(across, down))
    left, right = max(0, left - margin), min(columns, left + across + margin)
    top, bottom = max(0, top - margin), min(rows, top + down + margin)
    size = ((right - left) * CELL, (bottom - top) * CELL)
    map_x = cv2.resize(x[top:bottom, left:right], size)
    map_y = cv2.resize(y[top:bottom, left:right], size)
    return map_x, map_y


def _unbend(
    x: np.ndarray, y: np.ndarray, bend: Bend, width: float, height: float, extra: float
) -> tuple[np.ndarray, np.ndarray]:
    """Applies the inverse of each part of the bend, outermost first."""
    along, across = bend.projective
    if along or across:
        depth = 1 + along / (1.3 * width) * x + across / (2.2 * height) * y
        depth = np.maximum(depth, 0.2)
        x, y = x / depth, y / depth
    if bend.angle:
        cos, sin = math.cos(bend.angle), math.sin(bend.angle)
        x, y = cos * x + sin * y, cos * y - sin * x
    if bend.side:
        y = y - bend.side * x
        x = x * (1 / bend.squeeze)
    if bend.shear:
        x = x + bend.shear * y
    if bend.curve:
        radius = width / abs(bend.curve)
        sign = 1 if bend.curve > 0 else -1
        if bend.true_arc:
            below = radius - sign * y - 0.45 * extra
            angle = np.arctan2(x, np.maximum(below, 1e-3))
            # Behind the centre the circle would show the text a second time.
            distance = np.where(below > 0, np.hypot(x, below), 0)
            x, y = angle * radius, sign * (radius - distance)
        else:
            y = y - sign * (x * x) / (2 * radius) + sign * 0.4 * extra
    if bend.wave:
        amplitude, period, phase = bend.wave
        y = y + amplitude * np.sin(x * (2 * math.pi / period) + phase)
    return x, y


def warp(
    layers: np.ndarray, maps: tuple[np.ndarray, np.ndarray], scale: tuple[float, float]
) -> np.ndarray:
    """Returns the layers [h, w] or [h, w, 2] uint8 seen through the maps.

    Args:
      layers: the straight text, its middle in the middle.
      maps: from `inverse_map`.
      scale: pixels of the maps for a pixel of the layers, along x and y.
    """
    map_x = maps[0] * np.float32(1 / scale[0])
    map_y = maps[1] * np.float32(1 / scale[1])
    map_x += np.float32((layers.shape[1] - 1) / 2)
    map_y += np.float32((layers.shape[0] - 1) / 2)
    return cv2.remap(layers, map_x, map_y, cv2.INTER_LINEAR)


def draw_box(
    dice: Dice, mask: np.ndarray, settings: SimpleNamespace, room: float = 0.0
) -> tuple[slice, slice] | None:
    """Returns the rows and columns that a detector might cut out around the text.

    Each side is tight or loose by itself; a tight one may lose a few per cent. With
    `room` (from `draw_room`) the box is wide, and the text near its middle.
    None when nothing of the text is left.
    """
    _, ink = cv2.threshold(mask, 40, 255, cv2.THRESH_BINARY)
    left, top, width, height = cv2.boundingRect(ink)
    if width < 3 or height < 6:
        return None
    short = min(width, height)
    if room:
        low, high = (1 - _OFF_CENTRE) * room, (1 + _OFF_CENTRE) * room
        margins = [dice.uniform(low, high) for _ in range(4)]
    else:
        margins = []
        for _ in range(4):
            tight = dice.chance(settings.tight_share)
            margins.append(dice.uniform(*(settings.tight if tight else settings.loose)))
    aside = _WIDE_ASIDE if room else _ASIDE
    rows, columns = mask.shape
    x0 = max(0, int(left - aside * margins[0] * short))
    x1 = min(columns, int(left + width + aside * margins[1] * short + 1))
    y0 = max(0, int(top - margins[2] * short))
    y1 = min(rows, int(top + height + margins[3] * short + 1))
    if x1 - x0 < 5 or y1 - y0 < 7:
        return None
    return slice(y0, y1), slice(x0, x1)
