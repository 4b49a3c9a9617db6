"""When a run must stop: the counts and shares that decide, without a run."""

import pytest

from robustscanner_jax import health
from robustscanner_jax.health import TrainingStopped
from robustscanner_jax.train_log import Clock, ExampleCounts, Interval


def check(examples, *, recent=None, rows=(8, 8), skipped_in_row=0, max_bad_share=0.05):
    """Calls the check with counts by name; `rows` are those of each update."""
    interval = Interval(Clock())
    interval.metrics += [{"rows": count} for count in rows]
    health.check(
        ExampleCounts(examples),
        ExampleCounts(examples if recent is None else recent),
        interval,
        skipped_in_row=skipped_in_row,
        max_skipped=10,
        max_bad_share=max_bad_share,
    )


def test_a_share_of_unreadable_examples_may_be_reached_but_not_exceeded():
    check({"none": 2_000}, max_bad_share=0.0)
    check({"none": 950, "unreadable": 50})
    with pytest.raises(TrainingStopped, match="51 of 1000 examples are unreadable"):
        check({"none": 949, "unreadable": 51})


def test_updates_skipped_in_a_row_stop_a_run_at_their_limit():
    check({"none": 90}, skipped_in_row=9)
    with pytest.raises(TrainingStopped, match="not finite in 10 updates in a row"):
        check({"none": 90}, skipped_in_row=10)


def test_few_recent_examples_are_no_outage():
    examples = {"none": 900, "unreadable": 30}
    check(examples, recent={"none": 9, "unreadable": 30})
    with pytest.raises(TrainingStopped, match="is the storage still there"):
        check(examples, recent={"none": 20, "unreadable": 80})


def test_updates_without_examples_are_not_blamed_on_the_learning_rate():
    with pytest.raises(TrainingStopped, match="2 of the last 3 updates had none"):
        check({"none": 90}, rows=(8, 0, 0), skipped_in_row=10)
    with pytest.raises(TrainingStopped, match="not finite in 10 updates in a row"):
        check({"none": 90}, rows=(8, 8, 8), skipped_in_row=10)


class Words:
    name = "words"

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length


@pytest.mark.parametrize("now", [11, 13])
def test_data_that_shrank_or_grew_is_said(caplog, now):
    health.compare_lengths([Words(12)], [12])
    health.compare_lengths([Words(12)], [])
    assert not caplog.text
    health.compare_lengths([Words(now)], [12])
    assert f"words had 12 examples at the checkpoint and has {now} now" in caplog.text
