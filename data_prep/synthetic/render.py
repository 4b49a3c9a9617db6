"""The generator: a word and its picture for every index."""

import dataclasses
import functools
import json
import math
import threading
from types import SimpleNamespace

import cv2
import numpy as np
from ml_collections import ConfigDict

from data_prep.synthetic import (
    background,
    colour,
    compose,
    degrade,
    geometry,
    glyphs,
    neighbours,
    visibility,
    vocabulary,
    words,
)
from data_prep.synthetic.dice import Dice
from data_prep.synthetic.fields import Fields, shared_fields
from data_prep.synthetic.fonts import Fonts
from data_prep.synthetic.settings import plain

_CAPITAL = 0.75  # height of capitals, of the font size
_X_HEIGHT = 0.42  # height of small letters, of the font size
_LONGEST_MASK = 2400  # pixels
_LOADING = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Rendered:
    """A picture of a word."""

    image: np.ndarray  # [h, w, 3] uint8 BGR
    text: str


@dataclasses.dataclass(frozen=True)
class Shape:
    """A text that was bent and cut, before it has colours."""

    layers: np.ndarray  # [h, w] or [h, w, 2] uint8: coverage, layer of the style
    style: str  # "" for none
    text: str  # as it is written
    text_height: float  # of the straight text in `layers`, pixels
    enlarge: float  # final size of the picture, of the size of `layers`
    page: neighbours.Page  # what it stands on

    @property
    def outline(self) -> np.ndarray:
        """What is seen of the text, [h, w] uint8."""
        if self.style == "hollow":
            return cv2.subtract(self.layers[..., 1], self.layers[..., 0])
        return self.layers if self.layers.ndim == 2 else self.layers[..., 0]


@dataclasses.dataclass(frozen=True)
class Tools:
    """What pictures are made from, loaded once in a process."""

    vocabulary: vocabulary.Vocabulary
    fonts: Fonts
    fields: Fields


class WordRenderer:
    """Renders picture `index` of an endless sequence that `seed` fixes.

    A picture depends on nothing but settings, seed, split, index, fonts and word
    list: it is the same alone, in a million, and in every process. Pickling keeps the
    settings only; fonts and fields are loaded where they are used.
    """

    def __init__(self, settings: ConfigDict, *, seed: int, split: str = "train"):
        words.belongs("", split)  # complains about an unknown split
        self._json = settings.to_json(sort_keys=True)
        self._settings = plain(settings)
        self._seed = seed
        self._split = split

    def render(self, index: int) -> Rendered:
        """Returns picture `index`; never fails on a hard word."""
        picture, text, quality = self._draw(index)
        if quality is not None:
            data = degrade.encode_jpeg(picture, quality)
            decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
            picture = np.asarray(decoded)
        return Rendered(picture, text)

    def render_jpeg(self, index: int) -> tuple[bytes, str]:
        """Returns picture `index` as JPEG bytes, and its text.

        The bytes decode to the pixels of `render`, except where that has no JPEG
        traces; those are kept with `degrade.kept_jpeg`.
        """
        picture, text, quality = self._draw(index)
        quality = quality or self._settings.degrade.kept_jpeg
        return degrade.encode_jpeg(picture, quality), text

    def _draw(self, index: int) -> tuple[np.ndarray, str, int | None]:
        tools = load_tools(self._json)
        settings = self._settings
        dice = Dice(self._seed, index)
        text = words.draw_text(
            dice,
            tools.vocabulary,
            settings.words,
            self._split,
            can_show=tools.fonts.can_show,
        )
        for _ in range(settings.attempts):
            drawn = draw_picture(dice, text, tools, settings)
            if drawn is not None:
                break
        else:
            drawn = draw_plain(dice, text, tools)
        image, text = drawn
        quality = degrade.draw_quality(dice, image.shape[0], settings.degrade)
        return image, text, quality


def load_tools(settings_json: str) -> Tools:
    """Returns this process's fonts, words and fields for settings given as JSON."""
    with _LOADING:  # readers are threads: the first loads, the others wait for it
        return _load_tools(settings_json)


@functools.lru_cache(maxsize=4)
def _load_tools(settings_json: str) -> Tools:
    cv2.setNumThreads(1)  # the pictures are small, and workers run beside each other
    settings = plain(ConfigDict(json.loads(settings_json)))
    return Tools(
        vocabulary=vocabulary.load_vocabulary(settings.words),
        fonts=Fonts(settings.fonts),
        fields=shared_fields(),
    )


def draw_picture(
    dice: Dice, text: str, tools: Tools, settings: SimpleNamespace
) -> tuple[np.ndarray, str] | None:
    """Returns a picture [h, w, 3] uint8 and its label, or None if it came out badly.

    The label is `text`, in capitals where the font has no lower case.
    """
    shape = draw_shape(dice, text, tools, settings)
    if shape is None:
        return None
    regions = visibility.find_regions(shape.outline)
    if regions is None:
        return None
    text_colour, ground_colour = colour.draw_pair(dice, settings.colour)
    contrast = abs(colour.grey(text_colour) - colour.grey(ground_colour))
    planes = draw_scene(dice, shape, text_colour, ground_colour, tools, settings)
    limits = settings.visibility
    if not visibility.is_visible(
        colour.to_grey(planes),
        regions,
        contrast=limits.contrast,
        clutter=limits.clutter,
    ):
        return None

    degrade.apply_light(dice, planes, contrast, tools.fields, settings.degrade)
    image = degrade.apply_camera(
        dice,
        degrade.to_image(planes),
        enlarge=shape.enlarge,
        text_height=shape.text_height * shape.enlarge,
        contrast=contrast,
        settings=settings.degrade,
    )
    if shape.enlarge != 1.0:
        regions = visibility.resize_regions(regions, image.shape[1], image.shape[0])
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    contrast, clutter = limits.degraded_contrast, limits.degraded_clutter
    if not visibility.is_visible(grey, regions, contrast=contrast, clutter=clutter):
        return None
    contrast, clutter = contrast * limits.part_share, clutter * limits.part_share
    if not visibility.is_visible_throughout(
        grey, regions, contrast=contrast, clutter=clutter
    ):
        return None
    return image, shape.text


def draw_scene(
    dice: Dice,
    shape: Shape,
    text_colour: np.ndarray,
    ground_colour: np.ndarray,
    tools: Tools,
    settings: SimpleNamespace,
) -> np.ndarray:
    """Returns background, neighbouring text and text as planes [3, h, w] float32."""
    height, width = shape.layers.shape[:2]
    planes = background.draw_background(
        dice, ground_colour, height, width, tools.fields, settings.background
    )
    if dice.chance(settings.neighbours.share):
        around = neighbours.draw_neighbours(
            dice,
            shape.text,
            shape.page,
            vocabulary=tools.vocabulary,
            fonts=tools.fonts,
            word_settings=settings.words,
            settings=settings.neighbours,
        )
        own = dice.chance(settings.neighbours.other_colour_share)
        paint = dice.vector(0, 255) if own else text_colour
        background.blend(planes, around * np.float32(1 / 255), paint.tolist())
    compose.draw_foreground(
        dice,
        planes,
        shape.layers,
        shape.style,
        text_colour=text_colour,
        ground_colour=ground_colour,
        fields=tools.fields,
        settings=settings.fill,
    )
    return planes


def draw_shape(
    dice: Dice, text: str, tools: Tools, settings: SimpleNamespace
) -> Shape | None:
    """Returns the bent and cut layers of a text, or None if they came out badly."""
    bending = settings.geometry
    low, high = bending.heights
    height = min(high, max(low, math.exp(dice.normal(*bending.log_height))))
    drawn = min(height, bending.drawn_height)
    size = _font_size(drawn, settings.glyphs.sizes)
    found = tools.fonts.draw(dice, text, size)
    if found is None:
        return None
    font, opened = found
    if font.unicase:
        text = text.upper()
    mask = glyphs.draw_mask(dice, text, opened, settings.glyphs)
    if mask is None or mask.shape[1] > _LONGEST_MASK:
        return None

    # A dash alone is not blown up to the height of a word.
    scale_y = drawn / max(mask.shape[0], _X_HEIGHT * size)
    scale_x = scale_y * math.exp(dice.normal(*bending.stretch))
    text_height, text_width = mask.shape[0] * scale_y, mask.shape[1] * scale_x
    bend = geometry.draw_bend(dice, text_width, text_height, len(text), bending)
    style = ""
    if dice.chance(settings.style.share):
        style = dice.kind(settings.style.shares)
    layers, layer_scale = glyphs.scale_and_pad(mask, (scale_x, scale_y))
    if style:
        layers = glyphs.add_style(dice, layers, style, text_height, settings.style)
    room = geometry.draw_room(dice, settings.box)
    maps = geometry.inverse_map(dice, bend, text_width, text_height, tools.fields, room)
    if maps is None:
        return None
    layers = geometry.warp(layers, maps, layer_scale)
    page = neighbours.Page(maps, (scale_x, scale_y), mask.shape, opened)
    shape = Shape(layers, style, text, text_height, height / drawn, page)
    box = geometry.draw_box(dice, shape.outline, settings.box, room)
    if box is None:
        return None
    layers = np.ascontiguousarray(layers[box])
    page = dataclasses.replace(page, maps=(maps[0][box], maps[1][box]))
    return dataclasses.replace(shape, layers=layers, page=page)


def draw_plain(dice: Dice, text: str, tools: Tools) -> tuple[np.ndarray, str]:
    """Returns a text in black and white and its label: what is left if all else fails.

    Raises:
      ValueError: no font in fifty shows the text.
    """
    for _ in range(50):
        found = tools.fonts.draw(dice, text, 32)
        if found is None:
            continue
        font, opened = found
        label = text.upper() if font.unicase else text
        mask = glyphs.plain_mask(label, opened)
        if mask is not None:
            mask = cv2.copyMakeBorder(mask, 4, 4, 4, 4, cv2.BORDER_CONSTANT)
            mask = 255 - mask if dice.chance(0.5) else mask
            return cv2.cvtColor(mask, cv2.COLOR_GRAY2BGR), label
    raise ValueError(f"fonts: none of them can show {text!r}")


def _font_size(height: float, sizes: tuple[int, ...]) -> int:
    """Returns the smallest font size whose capitals are as tall as wanted."""
    for size in sizes:
        if size * _CAPITAL >= height:
            return size
    return sizes[-1]
