"""Metrics: valid JSON a line, whatever the values, and the same as events."""

import json
import subprocess
import sys

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robustscanner_jax.metric_writer import MetricWriter


def lines(folder):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_each_call_is_one_line_with_step_and_time(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(1, loss=0.5, **{"accuracy/dev": 0.25})
        writer.write(2, loss=0.125)
    first, second = lines(tmp_path)
    assert first.pop("time") <= second.pop("time")
    assert first == {"step": 1, "loss": 0.5, "accuracy/dev": 0.25}


def test_a_line_is_on_disk_before_the_writer_is_closed(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(7, loss=1.0)
        assert lines(tmp_path)[0]["step"] == 7


def test_a_resumed_run_appends(tmp_path):
    for step in (1, 2):
        with MetricWriter(tmp_path) as writer:
            writer.write(step, loss=1.0)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["loss", "a/b"]), st.floats()))
def test_any_number_gives_valid_json(tmp_path, values):
    with MetricWriter(tmp_path) as writer:
        writer.write(3, **values)
    line = lines(tmp_path)[-1]
    for name, value in values.items():
        assert line[name] == (value if np.isfinite(value) else None)


def test_the_same_values_are_written_as_events(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write(1, loss=0.5)
    (events,) = tmp_path.glob("events.out.tfevents.*")
    assert b"loss" in events.read_bytes()


def test_a_writer_that_is_off_writes_nothing(tmp_path):
    with MetricWriter(tmp_path, enabled=False) as writer:
        writer.write(1, loss=0.5)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_costs_lines_and_not_the_run(tmp_path, caplog):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with MetricWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.write(step, loss=1.0)
    (message,) = [r.getMessage() for r in caplog.records]  # once
    assert "metrics.jsonl" in message and "No space left" in message


def test_event_files_that_cannot_grow_do_not_hold_the_run_up(tmp_path):
    """Once there is room again, lines come again."""
    code = """
import resource, sys
from pathlib import Path
from robustscanner_jax.metric_writer import MetricWriter
with MetricWriter(Path(sys.argv[1])) as writer:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    for step in range(200):
        writer.write(step, **{name: 1.0 for name in "abcdefgh"})
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    writer.write(200, loss=0.5)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stderr.count("going on") == 1
    last = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    assert json.loads(last)["loss"] == 0.5
