"""Every option of the word generator, with the values of the preset `full`."""

from types import SimpleNamespace
from typing import Any

from ml_collections import ConfigDict

from data_prep.synthetic.words import RANDOM_ALPHABETS


def full() -> ConfigDict:
    """Returns the settings that are calibrated on real crops; not locked."""
    settings: Any = ConfigDict()
    settings.attempts = 8  # pictures tried for a word before a plain one is drawn
    settings.words = _words()
    settings.fonts = _fonts()
    settings.glyphs = _glyphs()
    settings.style = _style()
    settings.geometry = _geometry()
    settings.box = _box()
    settings.colour = _colour()
    settings.background = _background()
    settings.neighbours = _neighbours()
    settings.fill = _fill()
    settings.visibility = _visibility()
    settings.degrade = _degrade()
    return settings


def plain(settings: ConfigDict) -> SimpleNamespace:
    """Returns a copy with fast attributes; `shares` tables become dictionaries.

    Reading a key of a ConfigDict takes a microsecond, and a picture reads a hundred.
    """
    values = {}
    for name, value in settings.items():
        if isinstance(value, ConfigDict):
            value = dict(value.items()) if name.endswith("shares") else plain(value)
        values[name] = value
    return SimpleNamespace(**values)


def _words() -> ConfigDict:
    words = ConfigDict()
    words.file = ""  # word list (word TAB frequency); "": environment or wordfreq
    words.count = 120_000  # most frequent English words asked of wordfreq
    words.most_frequent = 0  # keep only that many words of the list; 0 keeps all
    words.lengths = (1, 22)  # letters of a word, both ends included
    words.marked = True  # words with an apostrophe or a dot as well
    words.max_label = 25  # characters of a label, whatever its kind
    words.shares = ConfigDict(  # kinds of label
        {
            "word": 0.56,
            "name": 0.08,
            "number": 0.10,
            "random": 0.12,
            "cut": 0.05,
            "punctuated": 0.045,
            "joined": 0.02,
            "single": 0.03,
        }
    )
    words.case_shares = ConfigDict(
        {"upper": 0.46, "title": 0.27, "lower": 0.25, "mixed": 0.02}
    )
    words.by_frequency = 0.78  # share of words drawn with p ~ f^power, rest uniform
    words.frequency_power = 0.52
    words.long_over = 6  # words with more letters are drawn again, up to three times,
    words.long_kept = 0.30  # but for this share
    words.marked_kept = 0.35  # the same for words with an apostrophe or a dot
    words.short_kept = 0.45  # the same for words of one and two letters
    words.random_alphabets = RANDOM_ALPHABETS  # one is drawn for each random string
    words.random_length = 4.0  # mean characters of a random string, beyond the
    words.random_shortest = 2  # shortest (exponential)
    words.random_longest = 16  # characters of the longest random string
    return words


def _fonts() -> ConfigDict:
    fonts = ConfigDict()
    fonts.folders = ()  # folders of .ttf files; (): environment or installed packages
    fonts.families = ()  # names as in the catalogue; () takes all
    fonts.max_files = 0  # use only that many files, spread over families; 0: all
    fonts.instances = 4  # random weights and widths tried of a variable font
    fonts.cached = 1500  # open fonts kept by a process
    return fonts


def _glyphs() -> ConfigDict:
    glyphs = ConfigDict()
    glyphs.sizes = (32, 44, 64)  # font sizes, pixels; the text height picks one
    glyphs.spaced_share = 0.26  # laid out a character at a time
    glyphs.tracking = (-0.06, 0.30)  # extra advance of those, of the font size
    glyphs.wide_tracking = (0.30, 0.80)  # the same for `wide_share` of them
    glyphs.wide_share = 0.15
    glyphs.jitter_share = 0.20  # of the spaced: characters off the baseline
    glyphs.jitter = 0.05  # largest offset, of the font size
    glyphs.bold_share = 0.08  # one pixel bolder
    glyphs.thin_share = 0.03  # one pixel thinner
    return glyphs


def _style() -> ConfigDict:
    style = ConfigDict()
    style.share = 0.32  # of the words have one of the styles
    style.shares = ConfigDict(
        {
            "border": 0.36,
            "shadow": 0.30,
            "extrude": 0.14,
            "hollow": 0.08,
            "emboss": 0.12,
            "glow": 0.10,
        }
    )
    style.thickness = (0.04, 0.14)  # of borders and offsets, of the text height
    return style


def _geometry() -> ConfigDict:
    geometry = ConfigDict()
    geometry.log_height = (3.07, 0.54)  # mean and deviation of log(text pixels)
    geometry.heights = (9.0, 110.0)  # limits of the text height, pixels
    geometry.drawn_height = 60.0  # taller text is drawn at this height, then enlarged
    geometry.stretch = (-0.06, 0.17)  # mean and deviation of log(width / natural)
    geometry.flat_share = 0.18  # no bending at all: scans, born-digital pictures
    geometry.rotation_share = 0.75
    geometry.rotation = 4.0  # degrees, standard deviation
    geometry.steep_share = 0.09  # rotated by any angle up to `steep`
    geometry.steep = 35.0  # degrees
    geometry.projective_share = 0.60
    geometry.projective = (0.32, 0.25)  # largest, along x and y
    geometry.shear_share = 0.45
    geometry.shear = 0.33  # largest, pixels of x for a pixel of y
    geometry.side_share = 0.22  # seen from the side: the line climbs, letters do not
    geometry.side = 0.60  # largest, pixels of y for a pixel of x
    geometry.squeeze = 0.9  # lost of the width for a `side` of 1
    geometry.curve_share = 0.18
    geometry.curve = (0.25, 2.1)  # angle of the arc, radians
    geometry.arc_share = 0.70  # of the curved: letters turn; the rest: a parabola
    geometry.wave_share = 0.04
    geometry.wave = (0.03, 0.10)  # of the text height
    geometry.elastic_share = 0.22
    geometry.elastic = (0.008, 0.04)  # of the text height
    return geometry


def _box() -> ConfigDict:
    box = ConfigDict()
    box.tight_share = 0.65  # of the four sides, each by itself
    box.tight = (-0.02, 0.14)  # margin, of the shorter side of the text
    box.loose = (0.0, 0.46)
    box.wide_share = 0.0  # of the pictures have room for more lines on all sides
    box.wide = (0.45, 1.25)  # margin of those, above and below
    return box


def _colour() -> ConfigDict:
    colour = ConfigDict()
    colour.shares = ConfigDict({"natural": 0.42, "sign": 0.40, "free": 0.18})
    colour.low_share = 0.16  # pairs that may have little contrast
    colour.low_contrast = (28.0, 60.0)  # least difference of grey, of 255
    colour.contrast = (65.0, 185.0)  # the same for the rest
    return colour


def _background() -> ConfigDict:
    background = ConfigDict()
    background.shares = ConfigDict(
        {
            "solid": 0.26,
            "gradient": 0.13,
            "soft": 0.15,
            "texture": 0.41,
            "stripes": 0.05,
        }
    )
    background.gradient = 40.0  # largest change from the middle to a side, of 255
    background.soft = (3.0, 20.0)  # deviation, of 255
    background.texture = (0.12, 0.65)  # strength; 1 keeps the contrast of the texture
    background.strong_texture = (0.65, 1.0)
    background.strong_share = 0.18
    background.stripes = 20.0  # deviation of their colour, of 255
    background.edge_share = 0.12  # the edge of a panel along a side
    background.rule_share = 0.05  # a line above or below the text
    return background


def _neighbours() -> ConfigDict:
    neighbours = ConfigDict()
    neighbours.share = 0.35  # of the pictures show other text where the crop is loose
    neighbours.line_share = 0.65  # have lines above, and as many below
    neighbours.word_share = 0.45  # have a word on the left, and as many on the right
    neighbours.gap = (0.072, 0.468)  # between lines, of the font size
    neighbours.space = (0.15, 0.40)  # between words, of the font size, and tracking
    neighbours.same_case_share = 0.7
    neighbours.other_font_share = 0.3
    neighbours.other_size_share = 0.4
    neighbours.sizes = (0.5, 1.8)  # of those, of the size of the text
    neighbours.other_colour_share = 0.25
    return neighbours


def _fill() -> ConfigDict:
    fill = ConfigDict()
    fill.textured_share = 0.18
    fill.texture = (0.08, 0.40)  # strength
    fill.gradient_share = 0.14
    fill.gradient = 42.0  # largest change from the middle to the top, of 255
    fill.worn_share = 0.05  # paint with gaps
    fill.faint_share = 0.12
    fill.faint = (0.70, 1.0)  # opacity of those
    return fill


def _visibility() -> ConfigDict:
    visibility = ConfigDict()
    visibility.contrast = 16.0  # least grey difference of text and surroundings, of 255
    visibility.clutter = 0.60  # and this much for each unit of their deviation
    visibility.degraded_contrast = 15.0  # both again for the finished picture
    visibility.degraded_clutter = 0.60
    visibility.part_share = 0.5  # of both limits, for each third of the width alone
    return visibility


def _degrade() -> ConfigDict:
    degrade = ConfigDict()
    degrade.light_share = 0.32  # uneven light
    degrade.light = (0.04, 0.25)  # deviation, relative
    degrade.glare_share = 0.03
    degrade.tone_share = 0.45  # other contrast and brightness
    degrade.tone_contrast = (0.65, 1.30)
    degrade.tone_brightness = 30.0  # largest change, of 255
    degrade.noise_share = 0.34
    degrade.noise = 5.0  # deviation of the deviation, of 255
    degrade.occluder_share = 0.025  # a thin line across
    degrade.blur_shares = ConfigDict(
        {"none": 0.38, "gauss": 0.32, "motion": 0.08, "small": 0.15, "sharpen": 0.07}
    )
    degrade.blur = 0.028  # deviation of the blur radius, of 1.35 text heights
    degrade.blur_limit = 0.060  # largest radius, in the same unit
    degrade.motion = (0.04, 0.11)  # length, in the same unit
    degrade.small = (0.40, 0.80)  # scale of pictures made small and large again
    degrade.small_least = 11.0  # pixels of text that must be left
    degrade.grey_share = 0.09
    degrade.jpeg_share = 0.65
    degrade.jpeg = (28, 96)  # quality
    degrade.jpeg_small = 55  # least quality of pictures up to 20 pixels high
    degrade.kept_jpeg = 92  # quality of `render_jpeg` where the picture had none
    return degrade
