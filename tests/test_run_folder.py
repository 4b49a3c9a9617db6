"""Whose config a run folder holds."""

import json
import os
import platform
from pathlib import Path

import jax
import pytest
from training import tiny_config

from configs import default
from robustscanner_jax import config as config_lib
from robustscanner_jax import run_folder
from robustscanner_jax.charset import DICT90


@pytest.fixture
def config(tmp_path):
    return tiny_config(tmp_path / "labels.tsv")  # and charset.txt beside it


def saved(workdir, name="4"):
    """Makes the folder look as if a run had saved there."""
    (workdir / "checkpoints" / name).mkdir(parents=True)


def test_a_new_folder_gets_config_and_versions(tmp_path, config):
    workdir = tmp_path / "deep" / "run"
    run_folder.claim(workdir, config, write=True)
    assert (
        config_lib.differences(config_lib.from_json(workdir / "config.json"), config)
        == []
    )
    versions = json.loads((workdir / "versions.json").read_text())
    assert versions["jax"] == jax.__version__
    assert versions["python"] == platform.python_version()


def test_a_process_that_does_not_write_makes_nothing(tmp_path, config):
    run_folder.claim(tmp_path / "run", config, write=False)
    assert not (tmp_path / "run").exists()


def test_the_same_config_may_come_again(tmp_path, config):
    run_folder.claim(tmp_path, config, write=True)
    saved(tmp_path)
    run_folder.claim(tmp_path, config, write=True)


def test_free_keys_may_change_and_the_file_follows(tmp_path, config):
    run_folder.claim(tmp_path, config, write=True)
    saved(tmp_path)
    config.train.steps = 99
    run_folder.claim(tmp_path, config, write=True)
    assert config_lib.from_json(tmp_path / "config.json").train.steps == 99


@pytest.mark.parametrize("write", [True, False])
def test_another_config_is_refused_and_every_key_is_named(tmp_path, config, write):
    run_folder.claim(tmp_path, config, write=True)
    saved(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    config.model.width, config.seed = "tiny", 3
    with pytest.raises(ValueError) as caught:
        run_folder.claim(tmp_path, config, write=write)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path} holds a run of another config (")
    assert "model.width was 'nano', now 'tiny'" in message
    assert "seed was 0, now 3" in message
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize("leftover", [None, "2.orbax-checkpoint-tmp-1"])
def test_a_folder_in_which_nothing_was_saved_takes_any_config(
    tmp_path, config, leftover
):
    run_folder.claim(tmp_path, config, write=True)
    if leftover:
        saved(tmp_path, leftover)
    config.model.width = "tiny"
    run_folder.claim(tmp_path, config, write=True)
    assert config_lib.from_json(tmp_path / "config.json").model.width == "tiny"


def test_the_characters_are_kept_in_the_folder(tmp_path, config):
    workdir = tmp_path / "run"
    run_folder.claim(workdir, config, write=True)
    expected = config_lib.make_charset(config)
    (tmp_path / "charset.txt").unlink()
    assert config_lib.make_charset(run_folder.read_config(workdir)) == expected


def test_a_charset_file_whose_characters_changed_is_refused(tmp_path, config):
    workdir = tmp_path / "run"
    run_folder.claim(workdir, config, write=True)
    saved(workdir)
    run_folder.claim(workdir, config, write=True)
    (tmp_path / "charset.txt").write_text("h\ng\nf\ne\nd\nc\nb\na\n")
    with pytest.raises(ValueError, match="charset was 'abcdefgh', now 'hgfedcba'"):
        run_folder.claim(workdir, config, write=True)


def test_a_charset_file_may_move_between_the_pieces_of_a_run(tmp_path, config):
    workdir = tmp_path / "run"
    run_folder.claim(workdir, config, write=True)
    saved(workdir)
    moved = Path(config.charset).rename(tmp_path / "elsewhere.txt")
    config.charset = str(moved)
    run_folder.claim(workdir, config, write=True)
    config.charset = str(workdir / "charset.txt")  # the run's own copy
    run_folder.claim(workdir, config, write=True)
    assert config_lib.make_charset(run_folder.read_config(workdir)).characters == (
        "abcdefgh"
    )


@pytest.mark.parametrize("charset", ["", "other.txt"])
def test_other_characters_are_refused_whatever_the_file_is_called(
    tmp_path, config, charset
):
    run_folder.claim(tmp_path / "run", config, write=True)
    saved(tmp_path / "run")
    (tmp_path / "other.txt").write_text("a\nb\n")
    config.charset = charset and str(tmp_path / charset)
    with pytest.raises(ValueError, match="charset was 'abcdefgh', now '"):
        run_folder.claim(tmp_path / "run", config, write=True)


def test_a_full_disk_leaves_nothing_half_written(tmp_path, config, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    run_folder.claim(tmp_path, config, write=True)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(os, "replace", full)
    config.train.steps = 99
    with pytest.raises(OSError, match="No space left"):
        run_folder.claim(tmp_path, config, write=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_built_in_charset_needs_no_file(tmp_path):
    (tmp_path / "charset.txt").write_text("left by a run that never saved")
    run_folder.claim(tmp_path, default.get_config(), write=True)
    assert not (tmp_path / "charset.txt").exists()
    config = run_folder.read_config(tmp_path)
    assert config_lib.make_charset(config).characters == DICT90


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path, config):
    path = tmp_path / "run"
    path.write_text("something of the user's")
    with pytest.raises(ValueError, match="run: expected a folder for the run"):
        run_folder.claim(path, config, write=True)
    assert path.read_text() == "something of the user's"


def test_a_mount_that_renames_no_folder_is_refused_before_training(
    tmp_path, config, monkeypatch
):
    """As gcsfuse does by default: every checkpoint would fail, at its end."""

    def refuse(self, target):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ValueError, match=r"cannot be renamed .*rename-dir-limit"):
        run_folder.claim(tmp_path / "run", config, write=True)
    assert list((tmp_path / "run").iterdir()) == []
