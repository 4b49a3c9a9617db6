"""What `import robustscanner_jax` offers, loaded when it is used."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools

import robustscanner_jax

REPOSITORY = Path(__file__).resolve().parent.parent


def run(code: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )


def test_every_name_that_is_offered_is_there_and_listed():
    for name in robustscanner_jax.__all__:
        assert getattr(robustscanner_jax, name) is not None
    assert set(robustscanner_jax.__all__) <= set(dir(robustscanner_jax))
    assert {"load_artefact", "Recognizer"} <= set(robustscanner_jax.__all__)


def test_a_name_that_is_not_offered_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Recogniser'"):
        robustscanner_jax.Recogniser  # noqa: B018


def test_readings_and_exports_need_no_jax():
    done = run("""
import sys
from robustscanner_jax import ImageError, Reading, load_artefact
sys.exit(sorted({"jax", "flax"} & set(sys.modules)) or 0)
""")
    assert done.returncode == 0, done.stderr


def test_type_checkers_are_told_that_the_installed_package_has_types(monkeypatch):
    given = {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: given.update(options))
    monkeypatch.chdir(REPOSITORY)
    runpy.run_path("setup.py")
    assert "py.typed" in given["package_data"]["robustscanner_jax"]
    assert (REPOSITORY / "robustscanner_jax" / "py.typed").is_file()
