"""Configs: every variant is complete and valid, bad values name their key, JSON."""

import importlib
import json
from pathlib import Path

import pytest
from helpers import CHARSET, small_model
from training import RULE, tiny_config

from configs import default
from robustscanner_jax import config as config_lib
from robustscanner_jax.charset import DICT90
from robustscanner_jax.open_weights import open_weights
from robustscanner_jax.weights import model_config

CONFIGS = sorted(
    path.stem
    for path in Path(default.__file__).parent.glob("*.py")
    if path.stem != "__init__"
)
PARTS = ["finetune:tiny", "tiny_cpu:second", "tiny_cpu:third", "tiny_cpu:fourth"]


@pytest.fixture
def config():
    return default.get_config()


@pytest.mark.parametrize("name", CONFIGS + PARTS)
def test_every_config_is_valid_and_has_the_keys_of_the_default(name, config):
    name, *part = name.split(":")
    variant = importlib.import_module(f"configs.{name}").get_config(*part)
    config_lib.validate(variant)
    assert config_lib.keys(variant) == config_lib.keys(config)


@pytest.mark.parametrize("name", ["small", "tiny"])
def test_fine_tuning_has_the_network_and_the_images_of_its_weights(name):
    config = importlib.import_module("configs.finetune").get_config(name)
    shipped = open_weights(config.train.init_weights)
    model = config_lib.make_model(config, shipped.charset)
    assert model_config(model) == model_config(shipped.model)
    assert config_lib.make_preprocessing(config) == shipped.preprocessing


def test_the_base_recipe_is_the_published_one():
    config = importlib.import_module("configs.base").get_config()
    assert config.data.batch_size * config.train.steps == pytest.approx(
        5 * 7_077_389, rel=1e-3
    )
    assert (config.train.schedule, config.train.peak_lr) == ("step", 1e-3)
    model = config_lib.make_model(config, config_lib.make_charset(config))
    assert (model.width, model.num_classes, model.max_len) == ("base", 93, 30)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.width", "huge"),
        ("model.dtype", "float8"),
        ("model.max_len", 1),
        ("train.schedule", "linear"),
        ("train.steps", 0),
        ("train.warmup_steps", 100_000),
        ("train.warmup_steps", -1),
        ("train.peak_lr", 0.0),
        ("train.ema_decay", 1.0),
        ("train.ema_decay", -0.1),
        ("train.clip_norm", -1.0),
        ("train.weight_decay", -0.1),
        ("model.mask_rounding", "Ceil"),
        ("data.num_workers", -2),
        ("data.augment_without", ("inverted",)),
        ("data.protocol", "37"),
        ("model.decoder_width", 0),
        ("data.max_bad_share", 1.5),
        ("data.variants", 2),  # with nothing in which they could differ
        ("data.batch_size", 0),
        ("data.augment", 1.5),
        ("data.variants", 0),
        ("data.variants", 3),
        ("data.train", ()),
        ("data.weights", (1.0, 1.0)),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_its_key(config, key, value):
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=f"^config.{key}: expected .*, got ") as caught:
        config_lib.validate(config)
    assert str(caught.value).endswith(repr(value))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("preprocessing.max_width", 20, "min_width <= max_width"),
        ("preprocessing.channel_order", "GRB", "BGR or RGB"),
        ("preprocessing.width_multiple", 0, "width_multiple must be at least 1"),
        ("charset", "/nowhere/letters.txt", "/nowhere/letters.txt: No such file"),
    ],
)
def test_what_the_parts_refuse_is_refused_before_any_work(config, key, value, message):
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        config_lib.validate(config)


def test_charset_model_and_preprocessing_come_from_the_config(config, tmp_path):
    assert config_lib.make_charset(config).characters == DICT90
    tiny = tiny_config(tmp_path / "labels.tsv")
    charset = config_lib.make_charset(tiny)
    assert charset == CHARSET
    assert config_lib.make_model(tiny, charset) == small_model()
    assert config_lib.make_preprocessing(tiny) == RULE


def test_a_config_survives_its_file(config, tmp_path):
    path = tmp_path / "config.json"
    config_lib.to_json(config, path)
    read = config_lib.from_json(path)
    assert config_lib.differences(read, config) == []
    assert json.loads(path.read_text())["train"]["steps"] == config.train.steps
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 7),
        ("model.width", "tiny"),
        ("preprocessing.height", 32),
        ("data.batch_size", 8),
        ("data.train", ("a.tsv",)),
        ("data.augment", 0.5),
        ("data.augment_without", ("invert",)),
    ],
)
def test_what_weights_or_order_depend_on_is_a_difference(config, key, value):
    before = config.copy_and_resolve_references()
    config.update_from_flattened_dict({key: value})
    (difference,) = config_lib.differences(before, config)
    assert difference.startswith(f"{key} was ") and ", now " in difference


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.dtype", "float32"),
        ("data.evaluate", ()),
        ("data.protocol", "exact"),
        ("data.num_workers", 4),
        ("charset", "letters.txt"),  # its characters may not: `run_folder`
        ("train.steps", 10),
        ("train.peak_lr", 1.0),
    ],
)
def test_the_rest_may_change_between_the_pieces_of_a_run(config, key, value):
    before = config.copy_and_resolve_references()
    config.update_from_flattened_dict({key: value})
    assert config_lib.differences(before, config) == []


def test_a_key_that_came_or_went_is_a_difference(config):
    before = json.loads(config.to_json_best_effort())
    del before["data"]["variants"]
    old = type(config)(before)
    assert config_lib.differences(old, config) == ["data.variants was None, now 1"]


def test_a_key_that_came_and_is_off_is_no_difference(config):
    before = json.loads(config.to_json_best_effort())
    del before["data"]["augment_without"]
    old = type(config)(before)
    assert config_lib.differences(old, config) == []
    config.data.augment_without = ("blur",)
    assert len(config_lib.differences(old, config)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no run folder; train first"),
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[1, 2]", "no config of a run, it lacks seed, charset, model"),
        ("3", "no config of a run"),
        ('{"model_type": "bert", "seed": 1}', "it lacks charset, model"),
    ],
)
def test_a_file_that_is_no_config_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        config_lib.from_json(path)
    assert str(path) in str(caught.value)
