"""Runs that start from a weights file."""

import dataclasses

import numpy as np
import pytest
from training import (
    everything_saved,
    tiny_config,
)

from robustscanner_jax import train
from robustscanner_jax.recognizer import Recognizer
from robustscanner_jax.weights import save_weights


def test_fine_tuning_starts_from_the_weights_of_a_file(
    quick, straight, labels, tmp_path, caplog
):
    workdir, _, _ = straight
    weights = tmp_path / "weights.safetensors"
    start_from = Recognizer.load(workdir, batch_size=8).weights
    save_weights(weights, start_from)
    config = tiny_config(labels, train__steps=1, train__init_weights=str(weights))
    train.run(config, tmp_path / "run")
    saved = everything_saved(tmp_path / "run", config)
    name = "['classifier']['kernel']"
    moved = np.abs(
        saved[f".params{name}"] - start_from.variables["params"]["classifier"]["kernel"]
    )
    assert 0 < moved.max() <= 1.01 * config.train.peak_lr


def test_fine_tuning_to_another_charset_keeps_what_is_known(
    quick, straight, labels, tmp_path, caplog
):
    workdir, _, _ = straight
    weights = tmp_path / "weights.safetensors"
    start_from = Recognizer.load(workdir, batch_size=8).weights
    save_weights(weights, start_from)
    config = tiny_config(
        labels, train__steps=1, train__init_weights=str(weights), train__peak_lr=1e-12
    )
    other = tmp_path / "other.txt"
    other.write_text("x\ng\n" + "\n".join("abcdefh") + "\n", encoding="utf-8")
    config.charset = str(other)
    caplog.set_level("INFO", logger="robustscanner_jax")
    train.run(config, tmp_path / "run")
    kept = len(set("gabcdefh") & set(start_from.charset.characters))
    dropped = len(start_from.charset.characters) - kept
    assert f"{kept} characters kept, {9 - kept} added " in caplog.text
    assert f", {dropped} dropped " in caplog.text
    rows = everything_saved(tmp_path / "run", config)[".params['classifier']['bias']"]
    before = start_from.variables["params"]["classifier"]["bias"]
    old = before[start_from.charset.characters.index("a")]
    assert rows[2] == pytest.approx(old, abs=1e-9)


def test_weights_of_another_network_are_refused_by_name(
    quick, straight, labels, tmp_path
):
    weights = tmp_path / "weights.safetensors"
    save_weights(weights, Recognizer.load(straight[0], batch_size=8).weights)
    config = tiny_config(
        labels, train__init_weights=str(weights), model__decoder_width=48
    )
    with pytest.raises(ValueError, match=r"weights\.safetensors: the weights are"):
        train.run(config, tmp_path / "run")


def test_images_that_the_weights_do_not_know_are_said_by_their_keys(
    quick, straight, labels, tmp_path, caplog
):
    weights = Recognizer.load(straight[0], batch_size=8).weights
    rule = dataclasses.replace(weights.preprocessing, mean=120.0)
    path = tmp_path / "weights.safetensors"
    save_weights(path, dataclasses.replace(weights, preprocessing=rule))
    config = tiny_config(labels, train__steps=1, train__init_weights=str(path))
    train.run(config, tmp_path / "run")
    found = [
        x.getMessage() for x in caplog.records if "preprocessing" in x.getMessage()
    ]
    assert found == [
        f"{path} was trained with preprocessing.mean=120.0, this run has 127.0"
    ]


def test_weights_that_may_not_read_some_characters_are_no_start(
    quick, straight, labels, tmp_path
):
    path = tmp_path / "weights.safetensors"
    save_weights(path, Recognizer.load(straight[0], allowlist="ab").weights)
    config = tiny_config(labels, train__steps=1, train__init_weights=str(path))
    with pytest.raises(ValueError, match=r"weights: .*no more than 'ab'|than 'ab'"):
        train.run(config, tmp_path / "run")
