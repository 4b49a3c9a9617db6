"""Counts of examples, and means over the updates between two lines of the log."""

import time

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustscanner_jax.data.transforms import Problem
from robustscanner_jax.train_log import ExampleCounts, Interval


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


def update(loss_sum, tokens, correct=0, grad_norm=1.0, skipped=0):
    values = locals()
    return {name: jnp.asarray(value) for name, value in values.items()}


def test_means_are_over_tokens_and_not_over_updates():
    interval = Interval()
    interval.metrics += [update(8.0, 2.0, 1, 3.0), update(4.0, 10.0, 9, 5.0, 1)]
    summary = interval.summary(batch_size=4)
    assert summary["loss"] == pytest.approx(1.0)
    assert summary["token_accuracy"] == pytest.approx(10 / 12)
    assert summary["grad_norm"] == pytest.approx(4.0)
    assert summary["skipped_updates"] == 1


def test_an_interval_without_tokens_divides_by_nothing():
    interval = Interval()
    interval.metrics.append(update(0.0, 0.0))
    summary = interval.summary(batch_size=4)
    assert summary["loss"] == 0 and summary["token_accuracy"] == 0


def test_a_loss_that_is_not_finite_shows():
    interval = Interval()
    interval.metrics += [update(1.0, 1.0), update(float("nan"), 1.0)]
    assert np.isnan(interval.summary(batch_size=4)["loss"])


def test_speed_and_waiting_are_measured_against_the_clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    interval = Interval()
    interval.metrics += [update(1.0, 1.0)] * 3
    interval.waited += 0.5
    now[0] += 2.0
    summary = interval.summary(batch_size=32)
    assert summary["images_per_second"] == pytest.approx(3 * 32 / 2)
    assert summary["data_wait_share"] == pytest.approx(0.25)
