"""Skips the tests that draw letters where no font is installed."""

import pytest

from data_prep.synthetic.fonts import find_fonts
from data_prep.synthetic.presets import get_settings
from data_prep.synthetic.settings import plain


def fonts_or_skip():
    """Returns the settings of the fonts; skips with the reason if there are none."""
    options = plain(get_settings("full")).fonts
    try:
        find_fonts(options)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return options
