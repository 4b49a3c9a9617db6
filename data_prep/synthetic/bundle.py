"""Packs fonts and words into one folder, for machines that cannot install packages.

Run:  python -m data_prep.synthetic.bundle --output=DIR
Then: ROBUSTSCANNER_FONTS=DIR ROBUSTSCANNER_WORDS=DIR/words.tsv python -m ...

The fonts are cut down to the printable ASCII characters, which leaves a tenth of their
size; the axes of variable fonts stay, and so do the file names, which tie a file to the
catalogue. Each font keeps copyright and licence in its name table; `LICENCES.tsv` lists
them. 492 fonts and the words take 14 MB.
"""

import argparse
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

from fontTools import subset
from fontTools.ttLib import TTFont

from data_prep.synthetic import fonts, presets, settings, vocabulary
from robustscanner_jax.whole_file import write_whole

WORDS_NAME = "words.tsv"
LICENCES_NAME = "LICENCES.tsv"
_KEPT_NAMES = (0, 1, 2, 3, 4, 6, 13, 14)  # copyright, names, licence and its address


def write_bundle(output: Path, font_settings: SimpleNamespace, count: int) -> int:
    """Writes the catalogue's fonts found here and the word list.

    Args:
      output: folder, made if missing. Files of the same name are replaced.
      font_settings: the section `fonts` of the settings: where to look.
      count: words asked of wordfreq.

    Returns the number of font files.

    Raises:
      FileNotFoundError: there is no font here.
    """
    found = fonts.find_fonts(font_settings)
    output.mkdir(parents=True, exist_ok=True)
    lines = ["file\tfamily\tpackage\tlicence\n"]
    for font, path in found:
        write_whole(output / font.file, shrink_font(path))
        lines.append(f"{font.file}\t{font.family}\t{font.package}\t{font.licence}\n")
    write_whole(output / LICENCES_NAME, "".join(lines).encode())
    vocabulary.write_word_list(output / WORDS_NAME, count)
    return len(found)


def shrink_font(path: Path) -> bytes:
    """Returns the font file with nothing but the printable ASCII characters.

    Kerning goes as well where it is in the GPOS table: the generator lays out with
    FreeType's own kerning, which reads the `kern` table only.
    """
    options = subset.Options(name_IDs=list(_KEPT_NAMES))
    options.layout_features = []
    options.drop_tables += ["GPOS", "GSUB", "GDEF", "DSIG", "meta"]
    options.hinting = True  # keeps the pixels equal to those of the whole font
    options.legacy_kern = True
    options.notdef_outline = True
    options.recalc_bounds = False
    font = TTFont(path, recalcTimestamp=False)  # the same bytes every time
    cut = subset.Subsetter(options)
    cut.populate(unicodes=range(0x20, 0x7F))
    cut.subset(font)
    buffer = io.BytesIO()
    font.save(buffer)
    return buffer.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the bundle and prints its size."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.synthetic.bundle",
        description="Packs fonts and words into one folder.",
    )
    parser.add_argument("--output", required=True, help="folder to write")
    flags = parser.parse_args(arguments)
    options = settings.plain(presets.get_settings("full"))
    output = Path(flags.output)
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    count = write_bundle(output, options.fonts, options.words.count)
    size = sum(path.stat().st_size for path in output.iterdir())
    print(f"{output}: {count} fonts and {WORDS_NAME}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
