"""Contact sheets: finished words, and every stage of the generator by itself.

Run: python -m data_prep.synthetic.sheet --output=DIR
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
from ml_collections import ConfigDict

from data_prep.synthetic import (
    background,
    colour,
    degrade,
    geometry,
    glyphs,
    presets,
    render,
    settings,
    textures,
    words,
)
from data_prep.synthetic.dice import Dice

_CELL = (190, 72)  # width and height of a picture on the sheet, pixels
_CAPTION = 14  # pixels below each picture
_GAP = 14  # pixels to the row below, so that a caption is nearest to its own picture
_FONT_SCALE = 0.38  # of captions
_COLUMNS = 8
_WORD = "Harbour"

Cell = tuple[np.ndarray, str]
Painter = Callable[[Dice, int, render.Tools, SimpleNamespace], Cell]


def grid(cells: Sequence[Cell]) -> np.ndarray:
    """Returns one picture [h, w, 3] uint8, every cell with its caption right below."""
    width, height = _CELL
    rows = -(-len(cells) // _COLUMNS)
    pitch = height + _CAPTION + _GAP
    # Grey: a picture on white paper has an edge.
    sheet = np.full((rows * pitch, _COLUMNS * width, 3), 225, np.uint8)
    for number, (image, caption) in enumerate(cells):
        if image.ndim == 2:
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        scale = min((width - 8) / image.shape[1], height / image.shape[0])
        size = (
            max(1, round(image.shape[1] * scale)),
            max(1, round(image.shape[0] * scale)),
        )
        shrinks = scale < 1
        image = cv2.resize(
            image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        )
        # At the bottom of its place: pictures of a row stand on one line.
        bottom = (number // _COLUMNS) * pitch + height
        left = (number % _COLUMNS) * width + 4
        sheet[bottom - size[1] : bottom, left : left + size[0]] = image
        at = (left, bottom + _CAPTION - 4)
        text = _shortened(caption, width - 8)
        cv2.putText(sheet, text, at, 0, _FONT_SCALE, (0, 0, 160), 1, cv2.LINE_AA)
    return sheet


def _shortened(caption: str, width: int) -> str:
    """Returns as much of a caption as fits into so many pixels."""
    text = caption
    while cv2.getTextSize(text, 0, _FONT_SCALE, 1)[0][0] > width:
        text = text.removesuffix("..")[:-1] + ".."
    return text


def _font_cell(
    dice: Dice, index: int, tools: render.Tools, options: SimpleNamespace
) -> Cell:
    while True:
        found = tools.fonts.draw(dice, _WORD, 44)
        if found is None:
            continue
        font, opened = found
        text = _WORD.upper() if font.unicase else _WORD
        mask = glyphs.draw_mask(dice, text, opened, options.glyphs)
        if mask is not None:
            return 255 - mask, font.family


def _geometry_cell(
    dice: Dice, index: int, tools: render.Tools, options: SimpleNamespace
) -> Cell:
    mask = None
    while mask is None:
        found = tools.fonts.draw(dice, _WORD, 44)
        mask = glyphs.plain_mask(_WORD, found[1]) if found else None
    height, width = mask.shape
    bend = geometry.draw_bend(dice, width, height, len(_WORD), options.geometry)
    maps = geometry.inverse_map(dice, bend, width, height, tools.fields)
    if maps is None:
        return np.full((height, width), 128, np.uint8), "rejected"
    padded, scale = glyphs.scale_and_pad(mask, (1.0, 1.0))
    return 255 - geometry.warp(padded, maps, scale), _describe(bend)


def _describe(bend: geometry.Bend) -> str:
    names = {
        "turn": bend.angle,
        "depth": any(bend.projective),
        "shear": bend.shear,
        "side": bend.side,
        "arc" if bend.true_arc else "parabola": bend.curve,
        "wave": bend.wave,
        "elastic": bend.elastic,
    }
    return " ".join(name for name, value in names.items() if value) or "flat"


def _colour_cell(
    dice: Dice, index: int, tools: render.Tools, options: SimpleNamespace
) -> Cell:
    text, ground = colour.draw_pair(dice, options.colour)
    image = np.empty((60, 160, 3), np.uint8)
    image[:] = np.clip(ground, 0, 255)
    cv2.putText(image, _WORD, (10, 42), 0, 1.1, text.tolist(), 3, cv2.LINE_AA)
    return image, f"contrast {abs(colour.grey(text) - colour.grey(ground)):.0f}"


def _background_cell(
    dice: Dice, index: int, tools: render.Tools, options: SimpleNamespace
) -> Cell:
    _, ground = colour.draw_pair(dice, options.colour)
    kind = dice.kind(options.background.shares)
    only = SimpleNamespace(**{**vars(options.background), "shares": {kind: 1.0}})
    planes = background.draw_background(dice, ground, 48, 150, tools.fields, only)
    return degrade.to_image(planes), kind


def _texture_cell(
    dice: Dice, index: int, tools: render.Tools, options: SimpleNamespace
) -> Cell:
    names = list(textures.PAINTERS)
    name = names[index % len(names)]
    generator = np.random.Generator(np.random.Philox(key=[1, index]))
    tile = textures.PAINTERS[name](generator)
    return np.clip(tile, 0, 255).astype(np.uint8)[:120, :240], name


def _neighbour_cell(
    dice: Dice, index: int, tools: render.Tools, options: SimpleNamespace
) -> Cell:
    image, shape = _scene_cell(dice, tools, options, "neighbours")
    return image, f"label {shape.text}"


def _style_cell(
    dice: Dice, index: int, tools: render.Tools, options: SimpleNamespace
) -> Cell:
    image, shape = _scene_cell(dice, tools, options, "style")
    return image, shape.style


def _scene_cell(
    dice: Dice, tools: render.Tools, options: SimpleNamespace, always: str
) -> tuple[np.ndarray, render.Shape]:
    """Returns a picture before degradation, a section's share at 1, and its shape."""
    options = SimpleNamespace(**vars(options))
    section = SimpleNamespace(**{**vars(getattr(options, always)), "share": 1.0})
    setattr(options, always, section)
    shape = None
    while shape is None:
        shape = render.draw_shape(dice, _WORD, tools, options)
    text, ground = colour.draw_pair(dice, options.colour)
    planes = render.draw_scene(dice, shape, text, ground, tools, options)
    return degrade.to_image(planes), shape


def _degrade_cell(
    dice: Dice, index: int, tools: render.Tools, options: SimpleNamespace
) -> Cell:
    planes = np.empty((3, 48, 170), np.float32)
    planes[:] = 205
    mask = np.zeros((48, 170), np.uint8)
    cv2.putText(mask, _WORD, (10, 34), 0, 1.1, 255, 2, cv2.LINE_AA)
    planes -= mask * np.float32(150 / 255)
    degrade.apply_light(dice, planes, 150, tools.fields, options.degrade)
    image = degrade.apply_camera(
        dice,
        degrade.to_image(planes),
        enlarge=1.0,
        text_height=26,
        contrast=150,
        settings=options.degrade,
    )
    quality = degrade.draw_quality(dice, image.shape[0], options.degrade)
    if quality is None:
        return image, "no JPEG"
    data = np.frombuffer(degrade.encode_jpeg(image, quality), np.uint8)
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR)), f"JPEG {quality}"


_STAGES: dict[str, Painter] = {
    "fonts": _font_cell,
    "geometry": _geometry_cell,
    "colour": _colour_cell,
    "background": _background_cell,
    "textures": _texture_cell,
    "style": _style_cell,
    "neighbours": _neighbour_cell,
    "degradation": _degrade_cell,
}


def write_sheets(
    output: Path, chosen: ConfigDict, *, seed: int, count: int
) -> list[Path]:
    """Writes `words.png`, one PNG for each stage, and `labels.txt`.

    Returns their paths.
    """
    output.mkdir(parents=True, exist_ok=True)
    renderer = render.WordRenderer(chosen, seed=seed, split="any")
    rendered = [renderer.render(index) for index in range(count)]
    sheets = {"words": [(one.image, one.text) for one in rendered]}
    tools = render.load_tools(chosen.to_json(sort_keys=True))
    options = settings.plain(chosen)
    for name, paint in _STAGES.items():
        sheets[name] = [
            paint(Dice(seed, index), index, tools, options) for index in range(count)
        ]
    labels = [
        words.draw_text(Dice(seed, index), tools.vocabulary, options.words)
        for index in range(10 * count)
    ]
    paths = [output / "labels.txt"]
    paths[0].write_text("\n".join(labels) + "\n")
    for name, cells in sheets.items():
        path = output / f"{name}.png"
        if not cv2.imwrite(str(path), grid(cells)):
            raise OSError(f"{path}: cannot be written")
        paths.append(path)
    return paths


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the sheets and prints their paths."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.synthetic.sheet", description="Draws contact sheets."
    )
    parser.add_argument("--output", required=True, help="folder for the PNGs")
    parser.add_argument("--preset", default="full", choices=presets.PRESETS)
    parser.add_argument("--seed", type=int, default=0, help="of the generator")
    parser.add_argument("--count", type=int, default=128, help="pictures on a sheet")
    flags = parser.parse_args(arguments)
    chosen = presets.get_settings(flags.preset)
    for path in write_sheets(
        Path(flags.output), chosen, seed=flags.seed, count=flags.count
    ):
        print(path)


if __name__ == "__main__":
    main()
