"""Counts of examples, and means over the updates between two lines of the log."""

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustscanner_jax.data.transforms import Problem
from robustscanner_jax.metrics import score_set
from robustscanner_jax.train_log import Clock, ExampleCounts, Interval, RunLog


@given(st.lists(st.lists(st.sampled_from(Problem), min_size=1), max_size=5))
def test_every_example_is_counted_under_its_problem(batches):
    counts = ExampleCounts({})
    for batch in batches:
        counts.add(np.array(batch, np.int8))
    flat = [problem for batch in batches for problem in batch]
    assert counts.total == len(flat)
    assert counts.good == flat.count(Problem.NONE)
    assert counts.unreadable == flat.count(Problem.UNREADABLE)
    assert counts.left_out() == {
        p.name.lower(): flat.count(p)
        for p in Problem
        if p in flat and p is not Problem.NONE
    }


def test_counts_go_on_from_what_a_checkpoint_kept():
    counts = ExampleCounts({"none": 5, "too_long": 2})
    counts.add(np.array([0, 3, 1], np.int8))
    kept = counts.named()
    assert kept == {"none": 6, "unreadable": 1, "too_long": 3}
    assert ExampleCounts(kept).named() == kept


def test_a_fresh_count_has_seen_nothing():
    counts = ExampleCounts({})
    assert (counts.total, counts.good, counts.unreadable) == (0, 0, 0)
    assert counts.left_out() == {}


def update(loss_sum, tokens, correct=0, grad_norm=1.0, skipped=0, rows=8.0):
    """Returns what `train_step` does of an update that was applied."""
    values = locals()
    return {name: jnp.asarray(value) for name, value in values.items()}


def skipped(rows=8.0):
    """Returns what `train_step` does of an update that was left out."""
    return update(0.0, 0.0, grad_norm=0.0, skipped=1, rows=rows)


def test_means_are_over_tokens_and_not_over_updates():
    interval = Interval(Clock())
    interval.metrics += [update(8.0, 2.0, 1, 3.0), update(4.0, 10.0, 9, 5.0)]
    summary = interval.summary(batch_size=4)
    assert summary["loss"] == pytest.approx(1.0)
    assert summary["token_accuracy"] == pytest.approx(10 / 12)
    assert summary["grad_norm"] == pytest.approx(4.0)
    assert summary["skipped_updates"] == 0


def test_an_update_that_was_left_out_is_counted_and_changes_no_mean():
    interval, good = Interval(Clock()), Interval(Clock())
    good.metrics += [update(8.0, 2.0, 1, 3.0), update(4.0, 10.0, 9, 5.0)]
    interval.metrics += [good.metrics[0], skipped(), good.metrics[1], skipped()]
    found, expected = (i.summary(batch_size=4) for i in (interval, good))
    for name in ("loss", "token_accuracy", "grad_norm"):
        assert found[name] == pytest.approx(expected[name])
    assert (found["skipped_updates"], expected["skipped_updates"]) == (2, 0)


def test_where_no_update_was_applied_there_is_no_mean():
    interval = Interval(Clock())
    interval.metrics += [skipped(), skipped(rows=0.0)]
    summary = interval.summary(batch_size=4)
    names = ("loss", "token_accuracy", "grad_norm")
    assert np.isnan([summary[name] for name in names]).all()


def test_an_update_without_examples_is_not_one_whose_loss_is_not_finite():
    interval = Interval(Clock())
    interval.metrics += [update(1.0, 1.0), skipped(rows=0.0), skipped()]
    assert interval.without_examples() == 1
    assert interval.summary(batch_size=4)["skipped_updates"] == 2


@pytest.fixture
def now(monkeypatch):
    found = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: found[0])
    return found


def spend(clock, now, part, seconds):
    with clock.spent(part):
        now[0] += seconds


def test_speed_counts_waiting_for_data_but_no_pauses(now):
    clock = Clock()
    spend(clock, now, "data_wait", 7.0)
    interval = Interval(clock)
    interval.metrics += [update(1.0, 1.0)] * 3
    spend(clock, now, "data_wait", 0.5)
    now[0] += 1.5
    for part, seconds in (("saving", 2.0), ("evaluating", 3.0), ("compiling", 1.0)):
        spend(clock, now, part, seconds)
    summary = interval.summary(batch_size=32)
    assert summary["images_per_second"] == pytest.approx(3 * 32 / 2)
    shares = {k: v * 8 for k, v in summary.items() if k.endswith("_share")}
    assert shares == pytest.approx(
        {
            "data_wait_share": 0.5,
            "saving_share": 2.0,
            "evaluating_share": 3.0,
            "compiling_share": 1.0,
        }
    )


@given(st.lists(st.tuples(st.sampled_from(Clock.PARTS), st.floats(0, 1e4))))
def test_goodput_and_the_parts_make_up_the_whole_run(spans):
    with pytest.MonkeyPatch.context() as monkeypatch:
        now = [0.0]
        monkeypatch.setattr(time, "perf_counter", lambda: now[0])
        clock = Clock()
        for part, seconds in spans:
            spend(clock, now, part, seconds)
            now[0] += 1.0
        seconds = clock.seconds()
        assert seconds.pop("total") == pytest.approx(now[0])
        lost = sum(seconds.values())
        assert clock.goodput() == pytest.approx(1 - lost / max(now[0], 1e-9))


def test_a_call_that_compiles_is_no_training_and_one_that_does_not_is(now):
    with Clock() as clock:
        function = jax.jit(lambda x: x * 2 + 1)
        for _ in range(3):
            with clock.maybe_compiling():
                function(np.ones(3, np.float32)).block_until_ready()
                now[0] += 10.0
    assert clock.compilations >= 1
    assert clock.seconds()["compiling"] == 10.0
    before = clock.compilations
    jax.jit(lambda x: x * 3 + 1)(np.ones(3, np.float32))
    assert clock.compilations == before, "it stopped to count"


def log_of(tmp_path, clock, peak_images=None, enabled=True, first=0):
    return RunLog(
        tmp_path,
        steps=(first, 4),
        batch_size=8,
        rates=[1.0, 0.5, 0.25, 0.125],
        clock=clock,
        peak_images=peak_images,
        enabled=enabled,
    )


@pytest.mark.parametrize("peak", [None, 400.0])
def test_a_line_has_utilisation_where_the_peak_is_known(tmp_path, now, peak, caplog):
    caplog.set_level("INFO", logger="robustscanner_jax")
    clock = Clock()
    with log_of(tmp_path, clock, peak) as log:
        interval = Interval(clock)
        interval.metrics.append(update(1.0, 1.0))
        spend(clock, now, "saving", 0.05)
        now[0] += 0.05
        log.write(3, interval, ExampleCounts({"none": 6, "too_long": 2}))
        log.write_accuracies(3, [score_set("held", "ab", "aa", [0.5, 0.5], "36")])
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    line, accuracies = map(json.loads, lines)
    assert line["images_per_second"] == pytest.approx(8 / 0.05)
    assert line.get("mfu") == (peak and pytest.approx(0.4))
    assert line["goodput"] == pytest.approx(0.5)
    assert line["learning_rate"] == 0.25 and line["left_out/too_long"] == 2
    assert accuracies["accuracy/held"] == 0.5
    assert "waiting for data 0%, 25.00% left out" in caplog.text
    assert "goodput 50 %; data wait 0%, saving 50%" in caplog.text


@pytest.mark.parametrize("enabled", [True, False])
def test_one_process_alone_says_how_far_the_run_is(
    tmp_path, now, enabled, monkeypatch, capsys, caplog
):
    """On a terminal: elsewhere no process draws a bar."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    caplog.set_level("INFO", logger="robustscanner_jax")
    clock = Clock()
    with log_of(tmp_path, clock, enabled=enabled, first=2) as log:
        now[0] += 1.0
        log.step()
        interval = Interval(clock)
        interval.metrics.append(update(1.0, 1.0))
        log.write(3, interval, ExampleCounts({"none": 8}))
    drawn = capsys.readouterr().err
    assert ("train: " in drawn and "loss 1.0000" in drawn) == enabled
    assert ("3/4" in drawn) == enabled
    assert ("goodput" in caplog.text) == enabled
    assert (tmp_path / "metrics.jsonl").exists() == enabled
    if not enabled:
        assert drawn == ""


def test_the_files_are_finished_when_the_run_ends_in_an_error(tmp_path, now):
    with pytest.raises(RuntimeError, match="the run's own"):
        with log_of(tmp_path, Clock()) as log:
            now[0] += 1.0
            raise RuntimeError("the run's own")
    assert log._writer._file.closed and log._progress.disable
