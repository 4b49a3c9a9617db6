"""The drill: sixty interruptions at random moments, and nothing is lost.

Takes about ten minutes: `pytest tests/test_drill.py`. ROBUSTSCANNER_DRILL_SEED chooses
other moments.
"""

import json
import os
import random
import signal
import time

import pytest
from training import (
    assert_same_end,
    everything_saved,
    flags_of,
    saved_steps,
    start,
    tiny_config,
    write_words,
)

KILLS, KILLS_INSIDE_A_SAVE, SIGTERMS = 50, 20, 10
SAVE_EVERY = 15
GRACE_SECONDS = 30
FOREVER = 1_000_000


def unfinished(workdir):
    return list((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def updates_logged(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_until(condition, process):
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.0005)


def kill_inside_a_save(process, workdir, rng):
    before = {p.name for p in unfinished(workdir)}
    wait_until(lambda: any(p.name not in before for p in unfinished(workdir)), process)
    time.sleep(rng.uniform(0, 0.03))
    process.kill()
    process.communicate()
    return bool(unfinished(workdir))


def kill_anywhere(process, workdir, rng):
    if rng.random() < 0.7:  # otherwise before it trains, perhaps
        logged = updates_logged(workdir)
        wait_until(lambda: updates_logged(workdir) > logged, process)
        time.sleep(rng.uniform(0, 1.0))
    else:
        time.sleep(rng.uniform(0.1, 8.0))
    process.kill()
    process.communicate()
    return False


def ask_to_stop(process, workdir, rng):
    logged = updates_logged(workdir)
    wait_until(lambda: updates_logged(workdir) > logged, process)
    time.sleep(rng.uniform(0, 0.5))
    asked = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=GRACE_SECONDS)
    assert process.returncode == 143, errors
    assert time.monotonic() - asked < GRACE_SECONDS
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    step = saved_steps(workdir)[-1]
    assert f"stopped: saved step {step} in" in errors
    assert step == json.loads(lines[-1])["step"], "not the step of the signal"
    return False


@pytest.mark.slow
def test_sixty_interruptions_later_the_state_is_bit_for_bit_that_of_a_quiet_run(
    tmp_path, capsys
):
    rng = random.Random(int(os.environ.get("ROBUSTSCANNER_DRILL_SEED", "1")))
    labels = write_words(tmp_path / "words")
    workdir = tmp_path / "run"
    config = tiny_config(
        labels, train__steps=FOREVER, train__save_every=SAVE_EVERY, train__log_every=1
    )
    todo = [kill_inside_a_save] * KILLS_INSIDE_A_SAVE + [ask_to_stop] * SIGTERMS
    todo += [kill_anywhere] * (KILLS - KILLS_INSIDE_A_SAVE)
    rng.shuffle(todo)
    inside, newest, lost = 0, 0, []
    while todo:
        interrupt = todo.pop()
        process = start(*flags_of(config, workdir))
        inside_a_save = interrupt(process, workdir, rng)
        inside += inside_a_save
        if interrupt is kill_inside_a_save and not inside_a_save:
            todo.insert(0, interrupt)  # the save was quicker: once more
        steps = saved_steps(workdir)
        if not steps:
            continue
        # What is listed is whole, and nothing that was listed is gone.
        state = everything_saved(workdir, config)
        assert state[".step"] == state["batches"] == steps[-1] >= newest
        newest = steps[-1]
        logged = (workdir / "metrics.jsonl").read_text(encoding="utf-8")
        lost.append(json.loads(logged.splitlines()[-1])["step"] - newest)
    assert inside >= KILLS_INSIDE_A_SAVE
    # One save may be under way while the next interval trains.
    assert max(lost) <= 2 * SAVE_EVERY
    config.train.steps = newest + 10
    for folder in (workdir, tmp_path / "quiet"):
        process = start(*flags_of(config, folder), stdout=None, stderr=None)
        assert process.wait(timeout=900) == 0
    assert_same_end(workdir, tmp_path / "quiet", config)
    with capsys.disabled():
        print(
            f"\n{KILLS} kills, {inside} of them inside a save, {SIGTERMS} SIGTERM; "
            f"{config.train.steps} updates, at most {max(lost)} lost at once"
        )
