"""Named settings of the word generator."""

import string
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from data_prep.synthetic import settings as settings_lib

# Upright sans and slab families that a small network learns first.
EASY_FAMILIES = (
    "Archivo Black",
    "Arvo",
    "Barlow",
    "Cabin",
    "Fira Sans",
    "Inter",
    "Jost",
    "Lato",
    "Montserrat",
    "Nunito",
    "Open Sans",
    "Poppins",
    "Roboto",
    "Roboto Slab",
    "Rubik",
    "Sanchez",
    "Work Sans",
    "Zilla Slab",
)


def get_settings(preset: str = "full") -> ConfigDict:
    """Returns the settings of a preset, locked: a misspelt key fails.

    `full` is calibrated on real crops, `easy` is for minutes of training on a CPU;
    `randtext` and `easy-randtext` show strings without context in the look of either,
    `easy-mixed` as many such strings as words; `loose` has crops so loose that most
    show other lines, the text in the middle. For ablations,
    `full` without random strings (`no-random`), with 16 fonts (`few-fonts`), and
    without textures in background and fill (`no-textures`).

    Raises:
      ValueError: there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(
            f"preset: expected one of {', '.join(PRESETS)}, got {preset!r}"
        )
    settings = settings_lib.full()
    PRESETS[preset](settings)
    settings.lock()
    return settings


def _leave(settings: Any) -> None:
    del settings


def _make_easy(settings: Any) -> None:
    """Keeps short lower-case words in few plain fonts on flat colours."""
    settings.words.most_frequent = 20_000
    settings.words.lengths = (3, 5)
    settings.words.marked = False
    settings.words.shares = ConfigDict({"word": 1.0})
    settings.words.case_shares = ConfigDict({"lower": 1.0})
    settings.words.random_alphabets = (string.ascii_lowercase,)
    settings.words.random_shortest, settings.words.random_longest = 3, 5
    settings.words.by_frequency = 0.0
    settings.fonts.families = EASY_FAMILIES
    settings.fonts.max_files = 16
    settings.glyphs.spaced_share = 0.0
    settings.glyphs.bold_share = settings.glyphs.thin_share = 0.0
    settings.style.share = 0.0
    geometry = settings.geometry
    geometry.log_height = (3.3, 0.2)
    geometry.flat_share = 0.0
    geometry.rotation = 2.0
    geometry.steep_share = geometry.projective_share = geometry.curve_share = 0.0
    geometry.wave_share = geometry.elastic_share = 0.0
    geometry.side_share = 0.0
    geometry.shear = 0.15
    settings.box.tight_share = 1.0
    settings.colour.shares = ConfigDict({"free": 1.0})
    settings.colour.low_share = 0.0
    settings.colour.contrast = (70.0, 170.0)
    background = settings.background
    background.shares = ConfigDict({"solid": 1.0})
    background.edge_share = background.rule_share = 0.0
    settings.neighbours.share = 0.0
    fill = settings.fill
    fill.textured_share = fill.gradient_share = fill.worn_share = fill.faint_share = 0.0
    degrade = settings.degrade
    degrade.light_share = degrade.glare_share = degrade.tone_share = 0.0
    degrade.occluder_share = degrade.grey_share = degrade.jpeg_share = 0.0
    degrade.noise = 4.0
    degrade.blur_shares = ConfigDict({"none": 0.7, "gauss": 0.3})
    degrade.blur = 0.015
    degrade.blur_limit = 0.045


def _make_easy_randtext(settings: Any) -> None:
    _make_easy(settings)
    _make_randtext(settings)


def _make_easy_mixed(settings: Any) -> None:
    _make_easy(settings)
    settings.words.shares = ConfigDict({"word": 1.0, "random": 1.0})


def _make_randtext(settings: Any) -> None:
    settings.words.shares = ConfigDict({"random": 1.0})


def _make_loose(settings: Any) -> None:
    settings.box.wide_share = 1.0
    settings.neighbours.share = 0.75
    settings.neighbours.line_share = 0.85
    settings.geometry.log_height = (2.85, 0.5)


def _drop_random(settings: Any) -> None:
    shares = settings.words.shares
    shares.word, shares.random = shares.word + shares.random, 0.0


def _keep_few_fonts(settings: Any) -> None:
    settings.fonts.max_files = 16


def _drop_textures(settings: Any) -> None:
    shares = settings.background.shares
    shares.solid, shares.texture = shares.solid + shares.texture, 0.0
    settings.fill.textured_share = settings.fill.worn_share = 0.0


PRESETS: dict[str, Callable[[Any], None]] = {
    "full": _leave,
    "loose": _make_loose,
    "easy": _make_easy,
    "easy-mixed": _make_easy_mixed,
    "easy-randtext": _make_easy_randtext,
    "randtext": _make_randtext,
    "no-random": _drop_random,
    "few-fonts": _keep_few_fonts,
    "no-textures": _drop_textures,
}
