"""Whole runs: what they leave behind, and that nothing that happens to them is lost."""

import dataclasses
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from training import (
    REPOSITORY,
    WORDS,
    assert_same_end,
    environment,
    everything_saved,
    flags_of,
    main,
    on_each_update,
    share_compiled,
    start,
    tiny_config,
    write_words,
)

from robustscanner_jax import config as config_lib
from robustscanner_jax import partition, train
from robustscanner_jax.data import transforms
from robustscanner_jax.recognizer import Recognizer
from robustscanner_jax.train import Preempted, TrainingStopped
from robustscanner_jax.weights import save_weights

# Twelve words in batches of eight: epochs end inside batches.
TWELVE = [*WORDS, "ab", "cd", "ef", "gh"]


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    return write_words(tmp_path_factory.mktemp("words"), TWELVE)


def evaluated(labels):
    return {"data__evaluate": (f"held:{labels}",)}


@pytest.fixture(scope="module")
def straight(labels, tmp_path_factory):
    """Returns an uninterrupted run: folder, config and the ids of its updates."""
    workdir = tmp_path_factory.mktemp("straight")
    config, seen = tiny_config(labels, **evaluated(labels)), []
    with pytest.MonkeyPatch.context() as monkeypatch:
        share_compiled(monkeypatch)
        on_each_update(monkeypatch, lambda _, ids: seen.append(ids))
        train.run(config, workdir)
    return workdir, config, seen


@pytest.fixture
def quick(monkeypatch):
    share_compiled(monkeypatch)
    transforms._reported.cache_clear()


def slowly(case):
    return pytest.param(case, marks=pytest.mark.slow)


def metrics(workdir):
    text = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def saved_steps(workdir):
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def test_a_run_ends_with_its_last_step_saved_and_so_many_before(straight):
    workdir, config, seen = straight
    assert saved_steps(workdir) == [2, 4, 6] and len(seen) == 6
    state = everything_saved(workdir, config)
    assert state[".step"] == 6 and state["batches"] == 6


def test_an_epoch_of_a_run_has_every_example_once(straight):
    _, _, seen = straight
    flat = [name for batch in seen for name in batch]
    for start_of in range(0, len(flat), 12):
        assert sorted(flat[start_of : start_of + 12]) == sorted(
            f"{i}.png" for i in range(12)
        )


def test_every_line_of_the_metrics_is_json_with_the_documented_values(straight):
    workdir, config, _ = straight
    lines = metrics(workdir)
    assert [line["step"] for line in lines] == [2, 4, 6]
    for line in lines:
        assert line["loss"] > 0 and line["grad_norm"] > 0
        assert 0 <= line["token_accuracy"] <= 1
        assert 0 <= line["data_wait_share"] <= 1
        assert line["images_per_second"] > 0 and line["skipped_updates"] == 0
        assert line["learning_rate"] == pytest.approx(config.train.peak_lr)
    assert list(workdir.glob("events.out.tfevents.*"))


def test_the_table_scores_what_the_predictions_say(straight):
    workdir, _, _ = straight
    rows = (workdir / "predictions.tsv").read_text().splitlines()
    assert rows[0].split("\t") == ["id", "label", "prediction", "confidence", "set"]
    cells = [row.split("\t") for row in rows[1:]]
    assert [(c[0], c[1]) for c in cells] == [
        (f"{i}.png", word) for i, word in enumerate(TWELVE)
    ]
    table = json.loads((workdir / "accuracy.json").read_text())
    (row,) = table["sets"]
    assert (row["name"], row["words"], table["protocol"]) == ("held", 12, "36")
    assert row["accuracy"] == np.mean([c[1] == c[2] for c in cells])
    assert row["mean_confidence"] == pytest.approx(
        np.mean([float(c[3]) for c in cells]), abs=1e-6
    )
    assert "| held | 12 |" in (workdir / "accuracy.md").read_text()


def test_the_samples_are_a_picture(straight):
    workdir, _, _ = straight
    picture = cv2.imread(str(workdir / "samples" / "held.png"))
    assert picture is not None and picture.std() > 1


def test_the_folder_reads_as_the_averaged_network_of_the_last_step(straight, labels):
    workdir, config, _ = straight
    saved = everything_saved(workdir, config)
    recognizer = Recognizer.load(workdir, batch_size=8)
    kernel = recognizer.weights.variables["params"]["classifier"]["kernel"]
    name = "['classifier']['kernel']"
    np.testing.assert_array_equal(kernel, saved[f".ema_params{name}"])
    assert (kernel != saved[f".params{name}"]).any()
    readings = recognizer.read([labels.parent / f"{i}.png" for i in range(12)])
    rows = (workdir / "predictions.tsv").read_text().splitlines()[1:]
    assert [r.text for r in readings] == [row.split("\t")[2] for row in rows]


@pytest.mark.parametrize("stop_at", [slowly(1), 3, slowly(6)])
def test_a_signal_saves_that_step_and_a_second_run_ends_as_one_without(
    quick, straight, labels, tmp_path, monkeypatch, stop_at
):
    reference, _, expected = straight
    config, seen = tiny_config(labels), []

    def act(number, ids):
        seen.append(ids)
        if number == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    on_each_update(monkeypatch, act)
    with pytest.raises(Preempted, match=f"saved step {stop_at} in "):
        train.run(config, tmp_path)
    assert saved_steps(tmp_path)[-1] == stop_at
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train.run(config, tmp_path)
    assert seen == expected
    assert_same_end(tmp_path, reference, config)


@pytest.mark.parametrize("die_at", [slowly(1), 4, slowly(5)])
def test_an_error_in_the_loop_loses_nothing_that_was_saved(
    quick, straight, labels, tmp_path, monkeypatch, die_at
):
    reference, _, expected = straight
    config, seen = tiny_config(labels), []

    def act(number, ids):
        if number == die_at:
            raise OSError("the network file system went away")
        seen.append(ids)

    on_each_update(monkeypatch, act)
    with pytest.raises(OSError, match="went away"):
        train.run(config, tmp_path)
    before = (die_at - 1) // 2 * 2  # saved every second step
    assert saved_steps(tmp_path) == list(range(2, before + 1, 2))
    del seen[before:]
    train.run(config, tmp_path)
    assert seen == expected
    assert_same_end(tmp_path, reference, config)


def test_a_second_interrupt_leaves_at_once(quick, straight, tmp_path, monkeypatch):
    def act(number, _):
        if number == 2:
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            raise KeyboardInterrupt

    on_each_update(monkeypatch, act)
    with pytest.raises(KeyboardInterrupt):
        train.run(straight[1], tmp_path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def table_without_speed(workdir):
    table = json.loads((workdir / "accuracy.json").read_text())
    table["extra"].pop("images_per_second")
    return table


def test_after_the_end_the_same_command_only_evaluates(
    quick, straight, monkeypatch, capsys
):
    workdir, config, _ = straight
    before = (workdir / "metrics.jsonl").read_bytes()
    table = table_without_speed(workdir)

    def act(number, _):
        raise AssertionError("trained again")

    on_each_update(monkeypatch, act)
    train.run(config, workdir)
    assert "held" in capsys.readouterr().out
    assert (workdir / "metrics.jsonl").read_bytes() == before
    assert table_without_speed(workdir) == table
    assert saved_steps(workdir) == [2, 4, 6]


def test_another_config_in_the_folder_is_refused_by_its_keys(quick, straight, labels):
    workdir, config, _ = straight
    other = tiny_config(labels, seed=4, data__augment=0.5, train__steps=9)
    before = (workdir / "config.json").read_bytes()
    with pytest.raises(ValueError) as caught:
        train.run(other, workdir)
    assert "data.augment was 0.0, now 0.5; seed was 0, now 4" in str(caught.value)
    assert "train.steps" not in str(caught.value)
    assert (workdir / "config.json").read_bytes() == before
    assert config_lib.differences(config, config_lib.from_json(
        workdir / "config.json")) == []  # fmt: skip


def test_a_mistake_in_the_data_may_be_mended_in_the_same_folder(
    quick, labels, tmp_path
):
    wrong = tiny_config(labels, data__train=(str(tmp_path / "nowhere"),))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        train.run(wrong, tmp_path / "run")
    train.run(tiny_config(labels, train__steps=2), tmp_path / "run")
    assert saved_steps(tmp_path / "run") == [2]


def test_labels_outside_the_charset_stop_the_run_with_their_count(
    quick, tmp_path, caplog
):
    labels = write_words(tmp_path / "data", ["XYZ", "Ω", "123", "zzz"])
    with pytest.raises(TrainingStopped) as caught:
        train.run(tiny_config(labels), tmp_path / "run")
    assert str(caught.value) == (
        "all 16 examples were left out: {'outside_charset': 16}"
    )
    assert "record 0.png left out: label 'XYZ' has unknown 'XYZ'" in caplog.text
    assert saved_steps(tmp_path / "run") == []


def damaged_words(folder):
    """Writes twelve words of which one, 8 %, has no image."""
    labels = write_words(folder, TWELVE)
    (folder / "5.png").write_bytes(b"")
    return labels


def test_many_unreadable_images_stop_the_run(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "MIN_EXAMPLES_FOR_SHARE", 24)
    labels = damaged_words(tmp_path / "data")
    config = tiny_config(labels)
    with pytest.raises(TrainingStopped) as caught:
        train.run(config, tmp_path / "run")
    # At step 2 sixteen examples were too few to tell.
    assert str(caught.value).startswith("2 of 32 examples are unreadable, more than ")
    assert "config.data.max_bad_share=5.0%" in str(caught.value)
    assert saved_steps(tmp_path / "run") == [2]


def test_few_unreadable_images_are_counted_and_the_count_survives_a_resume(
    quick, tmp_path, monkeypatch
):
    monkeypatch.setattr(train, "MIN_EXAMPLES_FOR_SHARE", 24)
    labels = damaged_words(tmp_path / "data")
    changes = dict(data__max_bad_share=0.2)
    for steps in (2, 6):
        train.run(tiny_config(labels, train__steps=steps, **changes), tmp_path / "run")
    counts = [line["left_out/unreadable"] for line in metrics(tmp_path / "run")]
    assert counts == sorted(counts) and counts[-1] == 4  # of 48: once an epoch


def test_updates_that_are_not_finite_are_left_out_until_ten_in_a_row(
    quick, labels, tmp_path, monkeypatch
):
    """From the fifth update on every batch is poisoned."""
    config = tiny_config(
        labels, train__steps=40, train__log_every=1, train__save_every=4
    )
    # Pixels divided by zero are not numbers.
    poisoned = tiny_config(labels, preprocessing__scale=1e-37)
    compile_step, fourth = train._compile_step, {}

    def compile_both(setup):
        rule = config_lib.make_preprocessing(poisoned)
        good = compile_step(setup)
        bad = compile_step(dataclasses.replace(setup, config=poisoned, rule=rule))

        def step(state, batch):
            if int(state.step) < 4:
                return good(state, batch)
            kernel = state.params["classifier"]["kernel"]
            fourth.setdefault("kernel", np.array(kernel))
            return bad(state, batch)

        return step

    monkeypatch.setattr(train, "_compile_step", compile_both)
    with pytest.raises(TrainingStopped, match="not finite in 10 updates in a row"):
        train.run(config, tmp_path)
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 15))
    assert [line["skipped_updates"] for line in lines] == [0.0] * 4 + [1.0] * 10
    assert all((line["loss"] is None) == (line["step"] > 4) for line in lines)
    # Every checkpoint is a good one: what the fourth update left.
    assert saved_steps(tmp_path) == [4, 8, 12]
    saved = everything_saved(tmp_path, config)
    kernel = saved[".params['classifier']['kernel']"]
    np.testing.assert_array_equal(kernel, fourth["kernel"])
    assert all(np.isfinite(array).all() for array in saved.values())


def test_evaluations_on_the_way_are_logged(quick, labels, tmp_path):
    config = tiny_config(
        labels, train__evaluate_every=2, train__steps=4, **evaluated(labels)
    )
    train.run(config, tmp_path)
    lines = [line for line in metrics(tmp_path) if "accuracy/held" in line]
    assert [line["step"] for line in lines] == [2]  # the end has its own table
    assert 0 <= lines[0]["accuracy/held"] <= 1


def test_the_batch_must_suit_the_devices(labels, tmp_path):
    assert partition.make_mesh().size == 8
    config = tiny_config(labels, data__batch_size=12)
    with pytest.raises(ValueError, match="batch size 12 cannot be split over 8"):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


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


@pytest.mark.slow
def test_eight_words_are_learned_by_heart(quick, tmp_path):
    labels = write_words(tmp_path / "data")
    config = tiny_config(
        labels,
        train__steps=150,
        train__ema_decay=0.0,
        train__schedule="one_cycle",
        train__peak_lr=3e-3,
        train__save_every=150,
        train__log_every=50,
        **evaluated(labels),
    )
    train.run(config, tmp_path / "run")
    table = json.loads((tmp_path / "run" / "accuracy.json").read_text())
    assert table["sets"][0]["accuracy"] == 1.0
    assert metrics(tmp_path / "run")[-1]["loss"] < 0.1


# Trains like `main`, and dies in the middle of update N as kill -9 makes it die.
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
import jax
from robustscanner_jax import config, main, partition, train
jax.config.update("jax_compilation_cache_dir", str(main.CACHE_FOLDER / "compiled"))
put_batch, count = partition.put_batch, iter(range(1, 10**6))
def watched(batch, keys, mesh):
    if "id" in batch:
        if next(count) == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        print("ids", *batch["id"].tolist(), flush=True)
    return put_batch(batch, keys, mesh)
partition.put_batch = watched
train.run(config.from_json(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def run_and_kill(config_path, workdir, update):
    """Returns the exit status and the ids of the updates."""
    code = KILLED.format(tests=str(REPOSITORY / "tests"))
    command = [sys.executable, "-c", code, config_path, workdir, str(update)]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=300
    )
    lines = done.stdout.splitlines()
    return done.returncode, [x.split()[1:] for x in lines if x.startswith("ids ")]


@pytest.mark.slow
def test_a_run_killed_twice_ends_bit_for_bit_as_one_that_was_not(labels, tmp_path):
    config = tiny_config(labels, train__steps=8, data__augment=1.0)
    path = tmp_path / "config.json"
    config_lib.to_json(config, path)
    status, expected = run_and_kill(path, tmp_path / "straight", 0)
    assert status == 0 and len(expected) == 8
    rng, seen, workdir = random.Random(0), {}, tmp_path / "killed"
    for update in (rng.randint(2, 5), rng.randint(2, 3), 0):
        first = saved_steps(workdir)[-1] if seen else 0
        status, ids = run_and_kill(path, workdir, update)
        assert status == (-signal.SIGKILL if update else 0)
        seen |= {first + i: batch for i, batch in enumerate(ids)}
    assert [seen[i] for i in range(8)] == expected
    assert_same_end(workdir, tmp_path / "straight", config)
    assert not list((workdir / "checkpoints").glob("*tmp*"))


def start_training(config, workdir):
    """Starts the command in a group of its own; returns when it trains."""
    process = start(*flags_of(config, workdir), start_new_session=True)
    deadline, log = time.monotonic() + 200, workdir / "metrics.jsonl"
    while not (log.exists() and log.stat().st_size):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_signal_to_all_processes_saves_and_exits_with_143(
    labels, tmp_path, stop, num_workers
):
    config = tiny_config(
        labels,
        data__num_workers=num_workers,
        train__steps=100_000,
        train__save_every=100_000,
        **evaluated(labels),
    )
    process = start_training(config, tmp_path / "run")
    sent = time.monotonic()
    os.killpg(process.pid, stop)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - sent < 30
    assert process.returncode == 143, err
    assert "Traceback" not in err
    (step,) = saved_steps(tmp_path / "run")
    assert f"stopped: saved step {step} in {tmp_path}/run; the same command" in err
    assert metrics(tmp_path / "run")[-1]["step"] in (step, step - 1)
    config.train.steps = step + 2
    done = main(*flags_of(config, tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert f"resuming {tmp_path}/run at step {step}" in done.stderr
    assert "held" in done.stdout


@pytest.mark.slow
def test_workers_do_not_outlive_a_run_that_is_killed(labels, tmp_path):
    config = tiny_config(
        labels, data__num_workers=2, train__steps=100_000, train__save_every=100_000
    )
    process = start_training(config, tmp_path / "run")
    os.kill(process.pid, signal.SIGKILL)
    try:  # returns when no process is left that could write to the pipes
        process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise


@pytest.mark.slow
def test_workers_change_nothing_about_a_run(
    quick, straight, labels, tmp_path, monkeypatch
):
    (reference, _, expected), seen = straight, []
    on_each_update(monkeypatch, lambda _, ids: seen.append(ids))
    config = tiny_config(labels, data__num_workers=2)
    train.run(config, tmp_path)
    assert seen == expected
    assert_same_end(tmp_path, reference, config)


def test_the_log_says_what_is_trained_and_on_what(quick, labels, tmp_path, caplog):
    with caplog.at_level(logging.INFO, "robustscanner_jax"):
        train.run(tiny_config(labels, train__steps=2), tmp_path)
    assert "nano: " in caplog.text and "float32, batch 8 on 1 cpu" in caplog.text
    assert "(12)" in caplog.text
