"""A training run small enough for tests: drawn words, a config, compiled once."""

import dataclasses
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from helpers import CHARSET, HEIGHT, MAX_LEN, WIDTH, eloquent, small_model
from ml_collections import ConfigDict

from configs import default
from launch import local
from robustscanner_jax import config as config_lib
from robustscanner_jax import partition, train
from robustscanner_jax.checkpoint import Checkpoints
from robustscanner_jax.optim import make_optimizer
from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.recognizer import Recognizer
from robustscanner_jax.steps import create_state, gradients
from robustscanner_jax.weights import Weights

WORDS = ["bad", "cab", "dead", "face", "gag", "head", "a", "chef"]
# In batches of eight: epochs end inside batches.
TWELVE = [*WORDS, "ab", "cd", "ef", "gh"]
RULE = Preprocessing(height=HEIGHT, min_width=HEIGHT, max_width=WIDTH)
REPOSITORY = Path(__file__).resolve().parent.parent


def draw_word(text: str, height: int = 24) -> np.ndarray:
    """Returns BGR pixels of a word, dark on light, without needing a font file."""
    image = np.full((height, 14 * len(text) + 8, 3), 230, np.uint8)
    cv2.putText(image, text, (4, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (60, 30, 10), 2)
    return image


def encode(image: np.ndarray, suffix: str = ".png") -> bytes:
    """Returns BGR pixels as the bytes of a file."""
    return cv2.imencode(suffix, image)[1].tobytes()


@functools.partial(jax.jit, static_argnames=("model", "accumulate", "train"))
def gradients_of(model, variables, batch, *, accumulate=1, train=True):
    """Returns what `steps.gradients` does, with the preprocessing of the tests."""
    return gradients(
        variables["params"],
        variables["batch_stats"],
        batch,
        model=model,
        mean=RULE.mean,
        scale=RULE.scale,
        accumulate=accumulate,
        train=train,
    )


class ListSource:
    """Elements in memory; what is an exception in the list is raised."""

    def __init__(self, elements, name="list"):
        self.name, self._elements = name, list(elements)

    def __len__(self):
        return len(self._elements)

    def __getitem__(self, index):
        element = self._elements[index]
        if isinstance(element, Exception):
            raise element
        return element


def word_source(words=WORDS, name="words") -> ListSource:
    """Returns a source of drawn words, encoded; ids are `name/number`."""
    return ListSource(
        (
            {"id": f"{name}/{i}", "image": encode(draw_word(word)), "text": word}
            for i, word in enumerate(words)
        ),
        name,
    )


def write_words(folder: Path, words=WORDS) -> Path:
    """Writes drawn words and a label file; returns that file."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, word in enumerate(words):
        (folder / f"{i}.png").write_bytes(encode(draw_word(word)))
        lines.append(f"{i}.png\t{word}\n")
    path = folder / "labels.tsv"
    path.write_text("".join(lines), encoding="utf-8")
    return path


def tiny_config(labels: Path, **changes) -> ConfigDict:
    """Returns a config for minutes of nothing: six updates of eight words.

    Args:
      labels: a label file to train on; the charset goes beside it.
      changes: further values, with two underscores in place of the dot.
    """
    charset = labels.with_name("charset.txt")
    charset.write_text("\n".join(CHARSET.characters) + "\n", encoding="utf-8")
    config = default.get_config()
    config.charset = str(charset)
    values = {
        "model.width": "nano",
        "model.max_len": MAX_LEN,
        "model.decoder_width": 32,
        "preprocessing.height": RULE.height,
        "preprocessing.min_width": RULE.min_width,
        "preprocessing.max_width": RULE.max_width,
        "data.train": (str(labels),),
        "data.evaluate": (),
        "data.batch_size": 8,
        "train.steps": 6,
        "train.schedule": "constant",
        "train.ema_decay": 0.5,
        "train.log_every": 2,
        "train.evaluate_every": 100,
        "train.save_every": 2,
    }
    values |= {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(values)
    return config


def share_compiled(monkeypatch) -> None:
    """Lets `train.run` use one device, and runs of equal configs what one compiled.

    Tracing takes two seconds, and a resumed run would do it again.
    """
    one = partition.make_mesh(jax.devices()[:1])
    set_up, compile_step = train.set_up, train._compile_step

    def key_of(config):
        options = config.train.to_dict()
        for name in (
            *("log_every", "evaluate_every", "save_every", "keep", "keep_best"),
            *("init_weights", "profile", "steps", "schedule", "peak_lr"),
            *("warmup_steps", "max_skipped", "stall_seconds"),
        ):
            del options[name]
        characters = config_lib.make_charset(config).characters
        return str([characters, config.model, config.preprocessing, options])

    def set_up_once(config, workdir):
        setup = set_up(config, workdir)
        tx = _once(("tx", key_of(config)), lambda: setup.tx)
        return dataclasses.replace(setup, tx=tx)

    def compile_once(setup):
        return _once(("step", key_of(setup.config)), lambda: compile_step(setup))

    def place_once(create, mesh):
        key = create.args, *sorted(create.keywords.items())
        copies = partition.replicated(mesh)
        return _once(str(key), lambda: jax.jit(create, out_shardings=copies))()

    monkeypatch.setattr(partition, "make_mesh", lambda devices=None: one)
    monkeypatch.setattr(partition, "place_state", place_once)
    monkeypatch.setattr(train, "set_up", set_up_once)
    monkeypatch.setattr(train, "_compile_step", compile_once)
    monkeypatch.setattr(train, "EVALUATION_BATCH", 8)


_COMPILED: dict = {}


def _once(key, make):
    if key not in _COMPILED:
        _COMPILED[key] = make()
    return _COMPILED[key]


def on_each_update(monkeypatch, act) -> None:
    """Calls `act(number, ids)` before each update of `train.run`, from 1 on."""
    put_batch, count = partition.put_batch, itertools.count(1)

    def watched(batch, keys, mesh):
        if "id" in batch:
            act(next(count), batch["id"].tolist())
        return put_batch(batch, keys, mesh)

    monkeypatch.setattr(partition, "put_batch", watched)


def _saved_shapes(config: ConfigDict):
    charset = config_lib.make_charset(config)
    options = config.train
    tx = make_optimizer(clip_norm=options.clip_norm, weight_decay=options.weight_decay)
    return jax.eval_shape(
        functools.partial(
            create_state,
            jax.random.key(0),
            model=config_lib.make_model(config, charset),
            tx=tx,
            image_size=(RULE.height, RULE.max_width),
            ema=options.ema_decay > 0,
        )
    )


def everything_saved(workdir: Path, config: ConfigDict) -> dict[str, np.ndarray]:
    """Returns the arrays of the newest checkpoint, by path."""
    shapes = _once(config.to_json_best_effort(), lambda: _saved_shapes(config))
    mesh = partition.make_mesh(jax.devices()[:1])
    checkpoints = Checkpoints(workdir, keep=config.train.keep)
    state, position = checkpoints.restore(partition.replicated_shapes(shapes, mesh))
    checkpoints.close()
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    found = {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}
    return found | {"batches": np.array(position.batches)}


def assert_same_end(first: Path, second: Path, config: ConfigDict) -> None:
    """Asserts that two runs ended with the same bits."""
    one, other = (everything_saved(path, config) for path in (first, second))
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def environment(**changes: str) -> dict[str, str]:
    """Returns the environment of a process with one CPU device and a warm cache."""
    kept = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    return kept | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_llvm_disable_expensive_passes=true",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(REPOSITORY),
        **changes,
    }


def start(*arguments: object, **options) -> subprocess.Popen:
    """Starts `python -m robustscanner_jax.main`; text on both pipes."""
    command = [sys.executable, "-m", "robustscanner_jax.main", *map(str, arguments)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment(), **(pipes | options)
    )


def main(*arguments: object) -> subprocess.CompletedProcess:
    """Runs the command to its end."""
    process = start(*arguments)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def flags_of(config: ConfigDict, workdir: Path) -> list[str]:
    """Returns the command line that trains this config."""
    before = dict(_leaves(default.get_config()))
    changed = [
        f"--config.{key}={value}"
        for key, value in _leaves(config)
        if value != before[key]
    ]
    return ["--config=configs/default.py", f"--workdir={workdir}", *changed]


def _leaves(config, prefix=""):
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


@functools.cache
def reading_weights() -> Weights:
    """Returns weights whose texts differ from image to image."""
    return Weights(small_model(), eloquent(), CHARSET, RULE, {"step": 0})


@functools.cache
def reader() -> Recognizer:
    """Returns a recogniser of eight rows at once, on eight devices."""
    return Recognizer(reading_weights(), batch_size=8)


def noise_image(seed: int, height: int = 24, width: int = 40) -> np.ndarray:
    """Returns an image that no other is like."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)


def evaluated(labels: Path) -> dict[str, tuple[str]]:
    """Returns the change of `tiny_config` that evaluates a label file as "held"."""
    return {"data__evaluate": (f"held:{labels}",)}


def metrics(workdir: Path) -> list[dict]:
    """Returns the lines of a run's log."""
    text = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def saved_steps(workdir: Path) -> list[int]:
    """Returns the steps whose checkpoints are complete, the oldest first."""
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())


def slowly(case):
    """Returns a case of a parametrised test that is left out of the quick suite."""
    return pytest.param(case, marks=pytest.mark.slow)


def finish(running, *, timeout):
    """Returns exit status and output of each; kills them where they hang."""
    deadline = time.monotonic() + timeout
    try:
        outputs = [
            p.communicate(timeout=max(deadline - time.monotonic(), 1))[0]
            for p in running
        ]
    finally:
        local.signal_all(running, signal.SIGKILL)
    return [(p.returncode, text) for p, text in zip(running, outputs, strict=True)]
