"""Several processes on one machine: their environments, their lines, their status."""

import os
import signal
import subprocess
import sys
import time

import pytest
from training import REPOSITORY

from launch import local
from robustscanner_jax import distributed

SHOW = (
    "import os; print(os.environ['ROBUSTSCANNER_PROCESS_ID'], "
    "os.environ['ROBUSTSCANNER_NUM_PROCESSES'])"
)
# Process 1 fails; the others would wait for it for ever.
FAIL = (
    "import os, sys, time\n"
    "if os.environ['ROBUSTSCANNER_PROCESS_ID'] == '1': sys.exit(7)\n"
    "time.sleep(600)"
)


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def test_every_process_is_told_who_it_is_and_its_lines_say_so(capsys):
    assert local.run(python(SHOW), 3) == 0
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "[0] 0 3",
        "[1] 1 3",
        "[2] 2 3",
    ]


def test_all_processes_meet_at_one_address_and_see_their_own_accelerators():
    found = local.environments(3, accelerators=2, base={"A": "b"})
    assert len({e[distributed.COORDINATOR] for e in found}) == 1
    assert [e["JAX_LOCAL_DEVICE_IDS"] for e in found] == ["0,1", "2,3", "4,5"]
    assert all(e["A"] == "b" for e in found)


def test_one_that_fails_ends_the_others_and_its_status_is_passed_on(capfd):
    began = time.monotonic()
    assert local.run(python(FAIL), 3) == 7
    assert time.monotonic() - began < local.GRACE_SECONDS
    assert "process 1 ended with status 7" in capfd.readouterr().err


def test_one_that_ignores_sigterm_is_killed_after_the_grace(monkeypatch):
    monkeypatch.setattr(local, "GRACE_SECONDS", 1)
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    wait = "import time; time.sleep(2) if '1' in os.environ[k] else time.sleep(600)\n"
    code = (
        f"import os; k = 'ROBUSTSCANNER_PROCESS_ID'\n{ignore}{wait}raise SystemExit(3)"
    )
    began = time.monotonic()
    assert local.run(python(code), 2) == 3
    assert time.monotonic() - began < 30


def test_a_process_ended_by_a_signal_gives_the_status_of_a_shell():
    assert local.exit_status(-signal.SIGKILL) == 137
    assert local.exit_status(3) == 3


def test_sigterm_to_the_launcher_reaches_every_process():
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "print('ready', flush=True); time.sleep(600)"
    )
    launcher = (
        "import sys; from launch import local; "
        f"sys.exit(local.run([sys.executable, '-S', '-c', {code!r}], 2))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", launcher],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    ready = [process.stdout.readline() for _ in range(2)]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert sorted(ready) == ["[0] ready\n", "[1] ready\n"]
    assert process.returncode == 143


@pytest.mark.parametrize("arguments", [["--processes=0", "--", "x"], ["--processes=2"]])
def test_a_command_line_that_cannot_work_starts_nothing(arguments, monkeypatch):
    monkeypatch.setattr(local, "start", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(SystemExit) as stop:
        local.main(arguments)
    assert stop.value.code == 2


def test_what_follows_the_dashes_goes_to_the_main_program(monkeypatch):
    seen = []
    monkeypatch.setattr(
        local, "run", lambda command, n, **_: seen.append((command, n)) or 0
    )
    assert local.main(["--processes=3", "--", "--config=c.py", "--workdir=w"]) == 0
    [(command, count)] = seen
    assert command[1:] == [
        "-m",
        "robustscanner_jax.main",
        "--config=c.py",
        "--workdir=w",
    ]
    assert count == 3


VARIABLES = (distributed.COORDINATOR, distributed.NUM_PROCESSES, distributed.PROCESS_ID)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("host", "2", "0"), "HOST:PORT"),
        (("host:80", "", "0"), "whole numbers"),
        (("host:80", "2", "2"), "expected 0 to 1"),
        (("host:80", "2", "-1"), "whole numbers"),
    ],
)
def test_an_environment_that_contradicts_itself_is_one_sentence(
    values, said, monkeypatch
):
    for name, value in zip(VARIABLES, values, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=said):
        distributed.initialise()


def test_a_process_that_is_alone_starts_nothing(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM_", "TPU_", "MEGASCALE_", "ROBUSTSCANNER_")):
            monkeypatch.delenv(name)
    monkeypatch.setattr(
        "jax.distributed.initialize", lambda *_, **__: pytest.fail("started")
    )
    distributed.initialise()
    # A shell inside an allocation, and a TPU slice of one host, are alone as well.
    monkeypatch.setenv("SLURM_NTASKS", "16")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    distributed.initialise()


def test_where_jax_finds_no_cluster_nobody_says_that_it_waited(monkeypatch):
    monkeypatch.setenv(distributed.COORDINATOR, "auto")

    def refuse(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr("jax.distributed.initialize", refuse)
    with pytest.raises(ValueError, match=r"by itself: coord.* set .*=HOST:PORT") as e:
        distributed.initialise()
    assert "600" not in str(e.value)
    for name, value in zip(VARIABLES, ("host:80", "2", "1"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"up to 600 s\), coordinator host:80: coord"):
        distributed.initialise()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLURM_STEP_NUM_TASKS", "8"),
        ("TPU_WORKER_HOSTNAMES", "host-0,host-1"),
        ("MEGASCALE_NUM_SLICES", "2"),
        (distributed.COORDINATOR, "auto"),
    ],
)
def test_a_cluster_that_jax_knows_is_left_to_jax(name, value, monkeypatch):
    seen = []
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        "jax.distributed.initialize", lambda *a, **k: seen.append((a, k))
    )
    distributed.initialise()
    [(arguments, keywords)] = seen
    assert arguments == (None, None, None)
    together = "heartbeat_timeout_seconds", "shutdown_timeout_seconds"
    assert sum(keywords[k] for k in together) < 60
