"""What happens to runs: signals, kills, bad data, full disks; nothing is lost."""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from training import (
    REPOSITORY,
    TWELVE,
    assert_same_end,
    environment,
    evaluated,
    everything_saved,
    flags_of,
    main,
    metrics,
    on_each_update,
    saved_steps,
    slowly,
    start,
    tiny_config,
    write_words,
)

from robustscanner_jax import config as config_lib
from robustscanner_jax import health, train
from robustscanner_jax.health import TrainingStopped
from robustscanner_jax.train import Preempted


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
    monkeypatch.setattr(health, "MIN_EXAMPLES_FOR_SHARE", 24)
    labels = damaged_words(tmp_path / "data")
    config = tiny_config(labels)
    with pytest.raises(TrainingStopped) as caught:
        train.run(config, tmp_path / "run")
    # At step 2 sixteen examples were too few to tell.
    assert str(caught.value).startswith("2 of 32 examples are unreadable, more than ")
    assert "config.data.max_bad_share=5.0%" in str(caught.value)
    assert saved_steps(tmp_path / "run") == [2]


def test_storage_that_goes_away_stops_the_run_before_the_good_checkpoints_are_gone(
    quick, tmp_path, monkeypatch
):
    """The share since the start would stop it much later."""
    monkeypatch.setattr(health, "MIN_RECENT_EXAMPLES", 16)
    labels = write_words(tmp_path / "data", TWELVE)
    config = tiny_config(labels, train__steps=40, data__max_bad_share=0.4)

    def act(number, _):
        if number == 20:
            for image in (tmp_path / "data").glob("*.png"):
                image.unlink()

    on_each_update(monkeypatch, act)
    with pytest.raises(
        TrainingStopped, match=r"last 16 examples.*'unreadable'.*storage"
    ):
        train.run(config, tmp_path / "run")
    saved = everything_saved(tmp_path / "run", config)
    assert saved_steps(tmp_path / "run")[0] <= 20
    assert all(np.isfinite(array).all() for array in saved.values())


def test_few_unreadable_images_are_counted_and_the_count_survives_a_resume(
    quick, tmp_path, monkeypatch
):
    monkeypatch.setattr(health, "MIN_EXAMPLES_FOR_SHARE", 24)
    labels = damaged_words(tmp_path / "data")
    changes = dict(data__max_bad_share=0.2)
    for steps in (2, 6):
        train.run(tiny_config(labels, train__steps=steps, **changes), tmp_path / "run")
    counts = [line["left_out/unreadable"] for line in metrics(tmp_path / "run")]
    assert counts == sorted(counts) and counts[-1] == 4  # of 48: once an epoch


def test_what_an_outage_left_in_a_checkpoint_does_not_stop_the_run_that_goes_on(
    quick, tmp_path, monkeypatch
):
    """SIGTERM during the outage saves its counts."""
    monkeypatch.setattr(health, "MIN_EXAMPLES_FOR_SHARE", 8)
    labels = write_words(tmp_path / "data", TWELVE)
    for path in (data := tmp_path / "data").glob("*.png"):
        path.rename(path.with_suffix(".gone"))
    for path in sorted(data.glob("*.gone"))[:3]:
        path.rename(path.with_suffix(".png"))
    config = tiny_config(labels, train__steps=2, train__log_every=100)
    with monkeypatch.context() as patched:
        patched.setattr(health, "check", lambda *_, **__: None)
        train.run(config, tmp_path / "run")
    for path in data.glob("*.gone"):
        path.rename(path.with_suffix(".png"))
    train.run(tiny_config(labels, train__steps=4), tmp_path / "run")
    assert metrics(tmp_path / "run")[-1]["left_out/unreadable"] > 4


def test_data_that_grew_between_two_pieces_of_a_run_is_said(quick, tmp_path, caplog):
    labels = write_words(tmp_path / "data", TWELVE)
    train.run(tiny_config(labels, train__steps=2), tmp_path / "run")
    train.run(tiny_config(labels, train__steps=3), tmp_path / "run")
    assert "its order is another" not in caplog.text
    lines = labels.read_text().splitlines(keepends=True)
    labels.write_text("".join([*lines, lines[-1]]))
    train.run(tiny_config(labels, train__steps=4), tmp_path / "run")
    assert "had 12 examples at the checkpoint and has 13 now" in caplog.text


def poison_from_the_fifth_update_on(monkeypatch, labels):
    """Divides pixels by zero; returns a dict that will hold the "kernel" before."""
    poisoned = tiny_config(labels, preprocessing__scale=1e-37)
    compile_step, fourth = train._compile_step, {}

    def compile_both(setup):
        rule = config_lib.make_preprocessing(poisoned)
        good = compile_step(setup)
        bad = compile_step(dataclasses.replace(setup, config=poisoned, rule=rule))

        def step(state, batch, rate):
            if int(state.step) < 4:
                return good(state, batch, rate)
            kernel = state.params["classifier"]["kernel"]
            fourth.setdefault("kernel", np.array(kernel))
            return bad(state, batch, rate)

        return step

    monkeypatch.setattr(train, "_compile_step", compile_both)
    return fourth


def test_updates_that_are_not_finite_are_left_out_until_ten_in_a_row(
    quick, labels, tmp_path, monkeypatch
):
    config = tiny_config(
        labels, train__steps=40, train__log_every=1, train__save_every=4
    )
    fourth = poison_from_the_fifth_update_on(monkeypatch, labels)
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


def test_one_unreadable_image_does_not_take_the_blame_for_updates_not_finite(
    quick, tmp_path, monkeypatch
):
    labels = damaged_words(tmp_path / "data")
    config = tiny_config(labels, train__steps=14, train__log_every=14)
    poison_from_the_fifth_update_on(monkeypatch, labels)
    with pytest.raises(TrainingStopped, match="not finite in 10 updates in a row"):
        train.run(config, tmp_path / "run")
    assert metrics(tmp_path / "run")[-1]["left_out/unreadable"] > 0


@pytest.mark.usefixtures("orbax_reads_left_over")
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    quick, straight, labels, tmp_path, caplog
):
    workdir, config, _ = straight
    copy = tmp_path / "run"
    shutil.copytree(workdir, copy)
    largest = max(
        (p for p in (copy / "checkpoints" / "6").rglob("*") if p.is_file()),
        key=lambda p: p.stat().st_size,
    )
    os.truncate(largest, largest.stat().st_size // 2)
    train.run(config, copy)
    assert "checkpoint 6 is damaged" in caplog.text
    assert_same_end(copy, workdir, config)
    assert (copy / "checkpoints" / "6.damaged").is_dir()


def test_a_full_disk_on_the_way_is_logged_and_at_the_end_stops_the_run(
    quick, labels, tmp_path, monkeypatch, caplog
):
    config = tiny_config(labels)  # saves after 2, 4 and 6
    usage, saves = shutil.disk_usage, []

    def full_from_the_second_save_on(path):
        saves.append(path)
        return usage(path)._replace(free=usage(path).free if len(saves) < 2 else 10)

    monkeypatch.setattr(shutil, "disk_usage", full_from_the_second_save_on)
    with pytest.raises(TrainingStopped, match=r"step 6 is not saved: .* 0 MB are"):
        train.run(config, tmp_path)
    assert "step 4 is not saved, going on" in caplog.text
    assert saved_steps(tmp_path) == [2]
    monkeypatch.setattr(shutil, "disk_usage", usage)
    train.run(config, tmp_path)
    assert saved_steps(tmp_path) == [2, 4, 6]


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
    assert "leaked" not in err  # shared memory of the workers' batches
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


def test_a_signal_finds_few_updates_waiting_for_the_device(
    labels, tmp_path, monkeypatch
):
    waiting = []
    compile_step = train._compile_step

    def slow(x):
        time.sleep(0.05)
        return x

    @jax.jit
    def ready_late(x):
        return jax.pure_callback(slow, x, x)

    def compiled(setup):
        step, rows = compile_step(setup), []

        def update(*args):
            waiting.append(sum(not x.is_ready() for x in rows))
            state, metrics = step(*args)
            rows.append(ready_late(metrics["rows"]))
            return state, metrics | {"rows": rows[-1]}

        return update

    monkeypatch.setattr(train, "_compile_step", compiled)
    rarely = dict(train__log_every=99, train__save_every=99, train__evaluate_every=99)
    train.run(tiny_config(labels, **rarely), tmp_path)
    assert max(waiting) == train.AHEAD
