"""Painted surfaces that stand in for photographs behind and inside the text.

Photographs with a clear free licence are few. Natural pictures have sharp edges at all
scales (leaves that hide each other do, and give the right spectrum), surfaces with a
fine grain, and man-made repetition; each painter here does one of them.
"""

import itertools
from collections.abc import Callable

import cv2
import numpy as np

SIDE = 256  # pixels of a tile
_LEAST_DEVIATION = 26.0  # of the values of a tile, of 255
_COPIES = {"clouds": 18, "leaves": 28, "grain": 14, "bricks": 14, "wood": 12}
_COPIES |= {"blocks": 20, "lights": 10, "weave": 8}

Painter = Callable[[np.random.Generator], np.ndarray]


def paint_all(generator: np.random.Generator) -> list[np.ndarray]:
    """Returns all tiles, [SIDE, SIDE, 3] uint8 BGR each, in a fixed order."""
    tiles = []
    for name, copies in _COPIES.items():
        for _ in range(copies):
            tiles.append(_visible(PAINTERS[name](generator)))
    return tiles


def _visible(tile: np.ndarray) -> np.ndarray:
    """Returns the tile as uint8, its contrast raised where next to nothing shows."""
    deviation = float(tile.std(axis=(0, 1)).mean())
    if deviation < _LEAST_DEVIATION:
        mean = tile.mean(axis=(0, 1))
        gain = _LEAST_DEVIATION / max(deviation, 1.0)
        tile = np.clip(mean, 60, 195) + (tile - mean) * np.float32(gain)
    return np.clip(tile, 0, 255).astype(np.uint8)


def octaves(
    generator: np.random.Generator, decay: float, stretch: float = 1.0
) -> np.ndarray:
    """Returns a field [SIDE, SIDE] in [0, 1] with detail at every scale.

    Args:
      generator: where the numbers come from.
      decay: weight of an octave relative to the next coarser one.
      stretch: the detail is that many times longer along x.
    """
    total = np.zeros((SIDE, SIDE), np.float32)
    weight, cells = 1.0, 3
    while cells <= SIDE:
        columns = max(2, int(cells / stretch))
        coarse = generator.standard_normal((cells, columns), np.float32)
        total += weight * cv2.resize(
            coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC
        )
        weight, cells = weight * decay, cells * 2
    low, high = np.percentile(total, (1, 99))
    return np.clip((total - low) / max(high - low, 1e-6), 0, 1)


def _colour(generator: np.random.Generator, saturation: float = 0.6) -> np.ndarray:
    hsv = np.array(
        [
            generator.uniform(0, 179),
            255 * saturation * generator.uniform() ** 1.5,
            generator.uniform(30, 255),
        ]
    )
    return cv2.cvtColor(hsv.astype(np.uint8).reshape(1, 1, 3), cv2.COLOR_HSV2BGR)[
        0, 0
    ].astype(np.float32)


def _palette(generator: np.random.Generator, count: int) -> np.ndarray:
    """Returns colours [count, 3] of one scene: variations of a base colour."""
    base = _colour(generator)
    spread = generator.uniform(8, 60)
    shades = generator.normal(0, spread, (count, 1)) + generator.normal(
        0, spread * 0.35, (count, 3)
    )
    return np.clip(base + shades, 0, 255).astype(np.float32)


def _map_colours(field: np.ndarray, stops: np.ndarray) -> np.ndarray:
    """Returns [SIDE, SIDE, 3]: values in [0, 1] as colours between the stops."""
    at = np.linspace(0, 1, len(stops))
    planes = [np.interp(field, at, stops[:, c]).astype(np.float32) for c in range(3)]
    return np.dstack(planes)


def _clouds(generator: np.random.Generator) -> np.ndarray:
    """Stains, skies, rust, marble."""
    field = octaves(generator, generator.uniform(0.35, 0.85))
    if generator.uniform() < 0.3:
        field = np.abs(2 * field - 1)  # veins
    return _map_colours(field, _palette(generator, int(generator.integers(2, 5))))


def _leaves(generator: np.random.Generator) -> np.ndarray:
    """Things in front of things: foliage, stones, crowds, clutter."""
    colours = _palette(generator, 24)
    tile = np.full((SIDE, SIDE, 3), colours[0], np.float32)
    count = int(generator.integers(150, 350))
    # Radii follow a power law, as in natural pictures; the large ones lie behind.
    radii = np.sort(4 / (1 - 0.97 * generator.uniform(size=count)) ** 0.8)[::-1]
    numbers = generator.uniform(size=(count, 5))
    box = generator.uniform() < 0.35
    for radius, (x, y, ratio, angle, shade) in zip(radii, numbers, strict=True):
        colour = colours[int(shade * len(colours))]
        axes = (radius, radius * (0.3 + 0.7 * ratio))
        at = (x * SIDE, y * SIDE)
        if box:
            points = cv2.boxPoints((at, (2 * axes[0], 2 * axes[1]), angle * 180))
            cv2.fillConvexPoly(tile, points.astype(np.int32), colour.tolist())
        else:
            cv2.ellipse(tile, (at, axes, angle * 180), colour.tolist(), -1)
    shade = octaves(generator, 0.6)[..., None]
    tile *= 0.6 + 0.7 * shade
    return cv2.GaussianBlur(tile, (0, 0), generator.uniform(0.5, 3.0))


def _grain(generator: np.random.Generator) -> np.ndarray:
    """Concrete, plaster, asphalt, paper: fine grain on soft stains."""
    stains = octaves(generator, 0.55)[..., None] - 0.5
    grain = generator.standard_normal((SIDE, SIDE, 1), np.float32)
    size = generator.uniform(0.4, 1.6)
    grain = cv2.GaussianBlur(grain, (0, 0), size)[..., None] * size * 3
    tile = _colour(generator, 0.3) + stains * generator.uniform(10, 80)
    tile = tile + grain * generator.uniform(2, 14)
    for _ in range(int(generator.integers(0, 3))):  # cracks
        steps = generator.normal(0, 9, (24, 2)).cumsum(0) + generator.uniform(
            0, SIDE, 2
        )
        dark = (_colour(generator, 0.2) * 0.4).tolist()
        tile = np.ascontiguousarray(tile, np.float32)
        cv2.polylines(tile, [steps.astype(np.int32)], False, dark, 1, cv2.LINE_AA)
    return tile


def _bricks(generator: np.random.Generator) -> np.ndarray:
    """Bricks, tiles and paving in a running bond."""
    mortar = _colour(generator, 0.2)
    tile = np.full((SIDE, SIDE, 3), mortar, np.float32)
    height = int(generator.integers(10, 40))
    width = int(height * generator.uniform(1.0, 3.2))
    gap = max(1, int(height * generator.uniform(0.04, 0.16)))
    colours = _palette(generator, 12)
    for row in range(SIDE // height + 1):
        shift = (row % 2) * width // 2
        for column in range(-1, SIDE // width + 2):
            x, y = column * width + shift, row * height
            colour = colours[generator.integers(12)]
            corner = (x + width - gap - 1, y + height - gap - 1)
            cv2.rectangle(tile, (x, y), corner, colour.tolist(), -1)
    tile *= 0.75 + 0.5 * octaves(generator, 0.8)[..., None]
    return cv2.GaussianBlur(tile, (0, 0), generator.uniform(0.4, 1.2))


def _wood(generator: np.random.Generator) -> np.ndarray:
    """Boards: rings stretched along the grain."""
    rings = octaves(generator, 0.5, stretch=6.0) * generator.uniform(3, 12)
    fine = octaves(generator, 1.1, stretch=24.0)
    field = 0.5 + 0.3 * np.sin(2 * np.pi * rings) + 0.4 * (fine - 0.5)
    if generator.uniform() < 0.5:
        stops = np.array([[30, 50, 80], [70, 115, 160], [120, 170, 215]], np.float32)
        stops *= np.float32(generator.uniform(0.5, 1.2))
    else:
        stops = _palette(generator, 3)
    tile = _map_colours(np.clip(field, 0, 1), stops)
    board = int(generator.integers(40, 140))
    for y in range(int(generator.integers(0, board)), SIDE, board):
        cv2.line(tile, (0, y), (SIDE, y), (stops[0] * 0.5).tolist(), 2)
    return np.ascontiguousarray(tile.transpose(1, 0, 2)) if board % 2 else tile


def _blocks(generator: np.random.Generator) -> np.ndarray:
    """Fronts of houses, shelves, panels: rectangles on a grid with shading."""
    colours = _palette(generator, 8)
    extra = _palette(generator, 4)
    tile = np.full((SIDE, SIDE, 3), colours[0], np.float32)
    across = np.cumsum(generator.integers(12, 70, 24))
    down = np.cumsum(generator.integers(12, 70, 24))
    across, down = across[across < SIDE + 70], down[down < SIDE + 70]
    for top, bottom in itertools.pairwise(down):
        for left, right in itertools.pairwise(across):
            table = extra if generator.uniform() < 0.2 else colours
            colour = table[generator.integers(len(table))].tolist()
            inset = int(generator.integers(0, 6))
            start = (int(left) - 12 + inset, int(top) - 12 + inset)
            end = (int(right) - 12 - inset, int(bottom) - 12 - inset)
            cv2.rectangle(tile, start, end, colour, -1)
    angle = generator.normal(0, 6)
    turn = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), angle, 1.15)
    tile = cv2.warpAffine(tile, turn, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT)
    tile *= 0.7 + 0.5 * octaves(generator, 0.5)[..., None]
    return cv2.GaussianBlur(tile, (0, 0), generator.uniform(0.5, 4.0))


def _lights(generator: np.random.Generator) -> np.ndarray:
    """A scene out of focus: soft discs on a dark or a bright ground."""
    tile = np.full((SIDE, SIDE, 3), _colour(generator), np.float32)
    tile *= generator.uniform(0.2, 0.9)
    for _ in range(int(generator.integers(12, 40))):
        at = tuple(int(v) for v in generator.uniform(0, SIDE, 2))
        disc = np.zeros((SIDE, SIDE), np.float32)
        cv2.circle(disc, at, int(generator.uniform(5, 45)), 1.0, -1)
        strength = generator.uniform(0.1, 0.6)
        tile += disc[..., None] * (_colour(generator, 0.9) - tile) * strength
    return cv2.GaussianBlur(tile, (0, 0), generator.uniform(1.0, 5.0))


def _weave(generator: np.random.Generator) -> np.ndarray:
    """Cloth, mesh and corrugated sheet."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    warp = (octaves(generator, 0.5) - 0.5) * generator.uniform(0, 30)
    period = generator.uniform(4, 22)
    field = np.sin(2 * np.pi * (x + warp) / period)
    if generator.uniform() < 0.6:
        field = field * np.sin(2 * np.pi * (y + warp) / period)
    stops = _palette(generator, 3)
    return _map_colours(np.clip(0.5 + 0.5 * field, 0, 1), stops)


PAINTERS: dict[str, Painter] = {
    "clouds": _clouds,
    "leaves": _leaves,
    "grain": _grain,
    "bricks": _bricks,
    "wood": _wood,
    "blocks": _blocks,
    "lights": _lights,
    "weave": _weave,
}
