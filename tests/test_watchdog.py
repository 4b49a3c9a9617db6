"""A run that hangs ends; one that goes on, or rests, does not."""

import subprocess
import sys

from training import REPOSITORY

PROGRAM = """
import time
from robustscanner_jax.watchdog import Watchdog

def hanging():
    time.sleep(60)

with Watchdog({seconds}) as watchdog:
    {body}
print("went on")
"""


def run(seconds, body):
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(seconds=seconds, body=body)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_an_update_that_hangs_ends_the_process_and_shows_where():
    ended = run(1, "watchdog.alive(); hanging()")
    assert ended.returncode == 1
    assert "Timeout (0:00:01)!" in ended.stderr and "in hanging" in ended.stderr
    assert "went on" not in ended.stdout


def test_updates_that_come_in_time_are_left_alone():
    ended = run(1, "[(watchdog.alive(), time.sleep(0.2)) for _ in range(7)]")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "went on\n", "")


def test_while_it_rests_and_after_its_end_nothing_is_watched():
    ended = run(1, "watchdog.alive(); watchdog.rest(); time.sleep(1.5)")
    assert (ended.returncode, ended.stderr) == (0, "")
    ended = run(1, "watchdog.alive()\ntime.sleep(1.5)")
    assert (ended.returncode, ended.stderr) == (0, "")


def test_zero_seconds_wait_for_ever():
    ended = run(0, "watchdog.alive(); time.sleep(0.5)")
    assert (ended.returncode, ended.stderr) == (0, "")
