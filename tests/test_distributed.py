"""Several processes train as one, stop together, and notice when one of them dies.

Run as a program this file is one of those processes: `train.run` with a plain
optimiser, writing down the examples it sees and, if told, ending itself.
"""

import collections
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from training import REPOSITORY, WORDS, finish, tiny_config, write_words

from launch import local
from robustscanner_jax import config as config_lib
from robustscanner_jax import distributed

STEPS, BATCH = 20, 8
# So that every five updates are an epoch.
NUM_WORDS = 40
# Small steps: with eight rows in batch norm larger ones are unstable, and a rounding of
# 1e-7 grows threefold with every update.
RATE = 1e-5
FOREVER = 100_000
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def work(config: str, workdir: str, fault: str) -> int:
    """Trains; `fault` is PROCESS:UPDATE:SIGNAL, and empty for none."""
    from absl import flags

    from robustscanner_jax import train, train_setup

    flags.FLAGS.mark_as_parsed()
    jax.config.update("jax_compilation_cache_dir", str(CACHE / "robustscanner_jax/xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    distributed.initialise()
    index = jax.process_index()
    print(f"{jax.device_count()} devices")
    fault_index, fault_step, number = map(int, (fault or "-1:0:0").split(":"))
    batches = train._batches

    def recorded(*arguments, **keywords):
        path = Path(f"{workdir}.seen.{index}")
        with open(path, "a", encoding="utf-8") as file:
            for step, batch in enumerate(batches(*arguments, **keywords), start=1):
                print(*batch["id"].tolist(), file=file, flush=True)
                if index == fault_index and step == fault_step:
                    os.kill(os.getpid(), number)
                yield batch

    train._batches = recorded
    # Not Adam, which where the true gradient is zero makes a step of the whole learning
    # rate out of rounding.
    train_setup.make_optimizer = lambda *_, **__: optax.sgd(RATE, momentum=0.9)
    try:
        train.run(config_lib.from_json(Path(config)), Path(workdir))
    except train.Preempted as stop:
        print(f"stopped: {stop}")
        return 128 + signal.SIGTERM
    return 0


def start(processes, labels, workdir, *, steps=STEPS, fault="", devices=1, monkeypatch):
    count = f"device_count={devices}"
    flags = re.sub(r"device_count=\d+", count, os.environ["XLA_FLAGS"])
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])
    )
    config = tiny_config(
        labels,
        train__steps=steps,
        train__log_every=1,
        train__save_every=FOREVER,
        train__evaluate_every=FOREVER,
        data__batch_size=BATCH,
        data__evaluate=(f"held:{labels}",),
        model__dtype="float32",  # one device rounds, where the processor has AMX
    )
    path = Path(f"{workdir}.config.json")
    config_lib.to_json(config, path)
    command = [sys.executable, __file__, str(path), str(workdir), fault]
    return local.start(command, processes)


def losses(workdir: Path) -> list[float]:
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines if "loss" in line]


def seen(workdir: Path, process: int) -> list[list[str]]:
    """Returns the ids of each of its batches that was trained on."""
    path = Path(f"{workdir}.seen.{process}")
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    words = (WORDS * NUM_WORDS)[:NUM_WORDS]
    return write_words(tmp_path_factory.mktemp("words"), words)


@pytest.fixture(scope="module")
def trained(labels, tmp_path_factory):
    """Returns run folders by number of processes."""
    folders = {}
    with pytest.MonkeyPatch.context() as monkeypatch:
        for processes in (1, 2, 4):
            workdir = tmp_path_factory.mktemp("runs") / str(processes)
            ran = finish(
                start(processes, labels, workdir, monkeypatch=monkeypatch), timeout=400
            )
            assert [s for s, _ in ran] == [0] * processes, "\n".join(t for _, t in ran)
            folders[processes] = workdir
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_have_the_losses_of_one(trained, processes):
    one, several = losses(trained[1]), losses(trained[processes])
    assert len(one) == STEPS
    np.testing.assert_allclose(several, one, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_each_update_sees_the_examples_of_one_process_each_once(trained, processes):
    alone = seen(trained[1], 0)
    parts = [seen(trained[processes], i) for i in range(processes)]
    for step in range(STEPS):
        together = [name for part in parts for name in part[step]]
        assert len(together) == BATCH
        assert sorted(together) == sorted(alone[step])


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_an_epoch_of_all_processes_holds_every_example_once(trained, processes):
    parts = [seen(trained[processes], i) for i in range(processes)]
    updates = NUM_WORDS // BATCH
    for first in range(0, STEPS, updates):
        epoch = collections.Counter(
            name
            for part in parts
            for batch in part[first : first + updates]
            for name in batch
        )
        assert len(epoch) == NUM_WORDS and set(epoch.values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2, 4])
def test_one_process_writes_the_results_and_counts_the_examples_of_all(
    trained, processes
):
    folder = trained[processes]
    assert (folder / "accuracy.json").is_file()
    [kept] = (folder / "checkpoints" / str(STEPS) / "data").glob("metadata")
    position = json.loads(kept.read_text(encoding="utf-8"))
    assert position["batches"] == STEPS
    assert position["examples"] == {"none": STEPS * BATCH}


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_signal_to_one_stops_all_and_another_number_of_processes_goes_on(
    labels, tmp_path, monkeypatch, trained, before, after
):
    workdir = tmp_path / "run"
    fault = f"{before - 1}:3:{int(signal.SIGTERM)}"
    running = start(
        before, labels, workdir, steps=FOREVER, fault=fault, monkeypatch=monkeypatch
    )
    stopped = finish(running, timeout=300)
    assert [status for status, _ in stopped] == [143] * before, stopped
    [step] = [int(p.name) for p in (workdir / "checkpoints").iterdir()]
    assert all(f"saved step {step} " in text for _, text in stopped)
    first = [seen(workdir, i)[:step] for i in range(before)]
    for path in tmp_path.glob("run.seen.*"):
        path.unlink()
    running = start(after, labels, workdir, steps=step + 5, monkeypatch=monkeypatch)
    resumed = finish(running, timeout=300)
    assert [status for status, _ in resumed] == [0] * after, resumed
    # Every update up to the end, across the stop: an epoch holds every example once.
    second = [seen(workdir, i)[:5] for i in range(after)]
    updates = [[n for part in first for n in part[i]] for i in range(step)]
    updates += [[n for part in second for n in part[i]] for i in range(5)]
    for start_of in range(0, len(updates) - 4, 5):
        names = [name for update in updates[start_of : start_of + 5] for name in update]
        assert len(names) == len(set(names)) == NUM_WORDS
    assert [sorted(u) for u in updates[:STEPS]] == [
        sorted(u) for u in seen(trained[1], 0)[: len(updates)]
    ]


@pytest.mark.slow
def test_a_run_goes_on_with_half_the_devices_and_then_with_one(
    labels, tmp_path, monkeypatch, trained
):
    workdir, updates = tmp_path / "run", []
    for devices, steps in ((8, 7), (4, 14), (1, STEPS)):
        running = start(
            1, labels, workdir, steps=steps, devices=devices, monkeypatch=monkeypatch
        )
        [(status, output)] = finish(running, timeout=300)
        assert status == 0, output
        assert f"{devices} devices\n" in output
        updates += [sorted(batch) for batch in seen(workdir, 0)[: steps - len(updates)]]
        Path(f"{workdir}.seen.0").unlink()
    assert updates == [sorted(batch) for batch in seen(trained[1], 0)]
    np.testing.assert_allclose(losses(workdir), losses(trained[1]), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_is_killed_the_other_leaves_within_a_minute(
    labels, tmp_path, monkeypatch, victim
):
    fault = f"{victim}:3:{int(signal.SIGKILL)}"
    workdir = tmp_path / "run"
    running = start(
        2, labels, workdir, steps=FOREVER, fault=fault, monkeypatch=monkeypatch
    )
    running[victim].wait(timeout=300)
    died = time.monotonic()
    ended = finish(running, timeout=90)
    assert time.monotonic() - died < 60
    status, output = ended[1 - victim]
    assert ended[victim][0] == -signal.SIGKILL
    assert status not in (0, 143)
    assert "error" in output.lower(), output


if __name__ == "__main__":
    sys.exit(work(*sys.argv[1:]))
