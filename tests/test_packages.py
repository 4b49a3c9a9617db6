"""Optional packages: there, missing, or broken."""

import sys

import pytest

from robustscanner_jax.packages import optional


def test_a_package_that_is_there_is_imported():
    assert optional("json.decoder", "reading") is sys.modules["json.decoder"]


def test_a_missing_package_is_one_sentence_with_the_name_that_pip_knows():
    with pytest.raises(ValueError) as caught:
        optional("no_such_thing.part", "a.x: reading an X")
    assert str(caught.value) == (
        "a.x: reading an X needs the package no-such-thing: pip install no-such-thing"
    )


def test_a_package_that_lacks_another_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import no_such_thing")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="'no_such_thing'"):
        optional("half_there", "reading")
