"""Finds the fonts, and hands out one of them at a size.

Fonts come from installed `fontpkg-*` packages (one wheel a family, licence inside) or
from folders of .ttf files. Only files of `fonts_catalogue.tsv` are used: it says which
are readable, which have no lower case, and which marks they lack.
"""

import bisect
import dataclasses
import functools
import importlib.metadata
import importlib.util
import itertools
import math
import os
import string
import zlib
from pathlib import Path
from types import SimpleNamespace

from PIL import ImageFont

from data_prep.synthetic.dice import Dice
from data_prep.synthetic.words import PUNCTUATION

FONTS_VARIABLE = "ROBUSTSCANNER_FONTS"
INSTALL_HINT = (
    "install them with `pip install -r data_prep/fonts_default.txt` or `pip install "
    "'.[fonts]'` in a clone, or set "
    f"{FONTS_VARIABLE} to a folder that holds the .ttf files"
)
_CATALOGUE = Path(__file__).parent / "fonts_catalogue.tsv"
_VARIED_AXES = ("wght", "wdth")  # the other axes stay at their default
_LEAST_WEIGHT = 250.0  # thinner strokes vanish at 20 pixels


@dataclasses.dataclass(frozen=True)
class FontFile:
    """A line of the catalogue."""

    file: str  # name without a folder
    family: str
    package: str
    licence: str  # SPDX identifier
    category: str
    unicase: bool  # lower case looks like capitals: labels are written in capitals
    missing: str  # marks of `PUNCTUATION` that it lacks
    axes: tuple[tuple[str, float, float, float], ...]  # tag, least, default, most

    def lacks(self, text: str) -> bool:
        """Returns whether a character of the text is missing in the font."""
        return bool(self.missing) and not set(self.missing).isdisjoint(text)


def read_catalogue() -> list[FontFile]:
    """Returns the shipped catalogue, sorted by family and file."""
    return list(_read_catalogue())


@functools.lru_cache(maxsize=1)
def _read_catalogue() -> tuple[FontFile, ...]:
    files = []
    for line in _CATALOGUE.read_text().splitlines():
        if line.startswith(("#", "file\t")):
            continue
        file, family, package, licence, category, unicase, missing, axes = line.split(
            "\t"
        )
        parsed = []
        for axis in filter(None, axes.split(";")):
            tag, *numbers = axis.split(":")
            parsed.append((tag, *(float(number) for number in numbers)))
        files.append(
            FontFile(
                file=file,
                family=family,
                package=package,
                licence=licence,
                category=category,
                unicase=unicase == "1",
                missing=missing,
                axes=tuple(parsed),
            )
        )
    return tuple(files)


def installed_folders() -> list[Path]:
    """Returns the folders of the `fontpkg-*` packages in this environment."""
    folders = []
    for entry in importlib.metadata.entry_points(group="fontpkg.family"):
        spec = importlib.util.find_spec(entry.value)
        if spec and spec.submodule_search_locations:
            folders.append(Path(spec.submodule_search_locations[0]) / "files")
    return sorted(set(folders))


def find_fonts(settings: SimpleNamespace) -> list[tuple[FontFile, Path]]:
    """Returns the fonts of the catalogue that are here, in catalogue order.

    Args:
      settings: the section `fonts`. `folders` go before the environment variable
        ROBUSTSCANNER_FONTS (folders separated as in PATH), that before packages.

    Raises:
      FileNotFoundError: a named folder does not exist, or no font is found.
    """
    named = list(settings.folders)
    if not named and os.environ.get(FONTS_VARIABLE):
        named = list(filter(None, os.environ[FONTS_VARIABLE].split(os.pathsep)))
    for folder in named:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"fonts: the folder {folder} does not exist")
    folders = [Path(folder) for folder in named] or installed_folders()
    paths: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.ttf")):
            paths.setdefault(path.name, path)
    found = [
        (font, paths[font.file]) for font in _read_catalogue() if font.file in paths
    ]
    if settings.families:
        wanted = set(settings.families)
        unknown = wanted - {font.family for font in _read_catalogue()}
        if unknown:
            raise ValueError(f"fonts.families: {sorted(unknown)} not in the catalogue")
        found = [(font, path) for font, path in found if font.family in wanted]
    if not found:
        where = ", ".join(str(folder) for folder in named) or "the installed packages"
        raise FileNotFoundError(f"no usable font in {where}; {INSTALL_HINT}")
    return _spread(found, settings.max_files)


def _spread(
    found: list[tuple[FontFile, Path]], most: int
) -> list[tuple[FontFile, Path]]:
    """Keeps `most` files, upright ones first, in turn from each family."""
    if not most or len(found) <= most:
        return found
    families: dict[str, list[tuple[FontFile, Path]]] = {}
    for item in found:
        families.setdefault(item[0].family, []).append(item)
    for files in families.values():
        files.sort(key=lambda item: ("Italic" in item[0].file, "Thin" in item[0].file))
    turns = itertools.zip_longest(*families.values())
    return [item for turn in turns for item in turn if item][:most]


class Fonts:
    """Draws fonts, families in proportion to the square root of their files."""

    def __init__(self, settings: SimpleNamespace):
        self._settings = settings
        families: dict[str, list[tuple[FontFile, Path]]] = {}
        for font, path in find_fonts(settings):
            families.setdefault(font.family, []).append((font, path))
        self._families = list(families.values())
        weights = [math.sqrt(len(files)) for files in self._families]
        self._cumulative = list(itertools.accumulate(weights))
        self._lacks = {frozenset(f.missing) for fs in families.values() for f, _ in fs}
        self._open = functools.lru_cache(maxsize=settings.cached)(_open_font)

    def __len__(self) -> int:
        """Returns the number of files."""
        return sum(len(files) for files in self._families)

    def can_show(self, text: str) -> bool:
        """Returns whether one of the fonts has the whole text."""
        return any(missing.isdisjoint(text) for missing in self._lacks)

    def draw(
        self, dice: Dice, text: str, size: int
    ) -> tuple[FontFile, ImageFont.FreeTypeFont] | None:
        """Returns a font that has the whole text, at `size` pixels; None: not found."""
        for _ in range(6):
            at = dice.random() * self._cumulative[-1]
            files = self._families[bisect.bisect_left(self._cumulative, at)]
            font, path = dice.pick(files)
            instance = dice.below(self._settings.instances) if font.axes else 0
            if not font.lacks(text):
                return font, self._open(font, path, size, instance)
        return None


def _open_font(
    font: FontFile, path: Path, size: int, instance: int
) -> ImageFont.FreeTypeFont:
    """Opens a font; `instance` numbers the random weights of a variable one."""
    opened = ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
    if font.axes:
        opened.set_variation_by_axes(_axis_values(font, instance))
    return opened


def _axis_values(font: FontFile, instance: int) -> list[float]:
    """Returns a value for each axis, fixed by the file's name and the number."""
    dice = Dice(zlib.crc32(font.file.encode()), instance)
    values = []
    for tag, least, default, most in font.axes:
        if tag == "wght":
            least = min(max(least, _LEAST_WEIGHT), most)
        varied = dice.uniform(least, most)
        values.append(varied if tag in _VARIED_AXES else default)
    return values


def characters_of(font: FontFile) -> str:
    """Returns every character of the charset that the font can show."""
    marks = [mark for mark in PUNCTUATION if mark not in font.missing]
    return string.digits + string.ascii_letters + "".join(marks)
