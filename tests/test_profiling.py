"""A trace covers the updates it was asked for, also in a resumed run."""

import jax
import jax.numpy as jnp
import pytest

from robustscanner_jax.profiling import ProfiledUpdates


@pytest.fixture
def calls(monkeypatch):
    found = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda f: found.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: found.append("stop"))
    return found


def train(folder, calls, first, last, *, steps):
    with ProfiledUpdates(folder, first, last) as profiled:
        for step in steps:
            profiled.before(step)
            calls.append(step)
            profiled.after(step, jnp.ones(1))
    return calls


def test_the_range_is_traced_and_no_more(tmp_path, calls):
    train(tmp_path, calls, 2, 3, steps=range(1, 6))
    assert calls == [1, "start", 2, 3, "stop", 4, 5]


def test_a_run_that_resumes_inside_the_range_traces_the_rest(tmp_path, calls):
    train(tmp_path, calls, 2, 4, steps=range(3, 6))
    assert calls == ["start", 3, 4, "stop", 5]


def test_a_run_that_ends_inside_the_range_ends_the_trace(tmp_path, calls):
    train(tmp_path, calls, 2, 9, steps=range(1, 4))
    assert calls == [1, "start", 2, 3, "stop"]
    with pytest.raises(KeyboardInterrupt), ProfiledUpdates(tmp_path, 1, 9) as profiled:
        profiled.before(1)
        raise KeyboardInterrupt
    assert calls[-2:] == ["start", "stop"]


def test_by_default_nothing_is_traced(tmp_path, calls):
    assert train(tmp_path, calls, 0, 0, steps=range(1, 4)) == [1, 2, 3]


def test_a_trace_is_written(tmp_path):
    with ProfiledUpdates(tmp_path, 1, 1) as profiled:
        profiled.before(1)
        profiled.after(1, jax.jit(lambda x: x + 1)(jnp.ones(3)))
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))
