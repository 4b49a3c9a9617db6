"""Processors: as many as this process may use."""

import os

import pytest

from robustscanner_jax import cores as cores_lib


@pytest.mark.parametrize(
    ("share", "cores"),
    [("max 100000\n", 8), ("250000 100000\n", 3), ("9000000 100000\n", 8), ("", 8)],
)
def test_no_more_cores_are_used_than_a_container_may(
    tmp_path, monkeypatch, share, cores
):
    (tmp_path / "cpu.max").write_text(share)
    monkeypatch.setattr(cores_lib, "CPU_SHARE", tmp_path / "cpu.max")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    assert cores_lib.allowed_cores() == cores
    monkeypatch.setattr(cores_lib, "CPU_SHARE", tmp_path / "none")
    assert cores_lib.allowed_cores() == 8
