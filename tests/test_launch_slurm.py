"""The batch script of SLURM, run against stand-ins of srun, scancel and scontrol.

The stand-in of srun starts three tasks and does as the real one with
`--kill-on-bad-exit`: once one fails the others get SIGTERM, and its status is the
highest of theirs, 128 and the signal for one that a signal ended.
"""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training import REPOSITORY

from launch import slurm

RUN = ["--config=configs/small.py", "--workdir=/shared/runs/small"]
TASKS = 3

SRUN = """\
#!{python} -S
import os, pathlib, signal, subprocess, sys, time
command = sys.argv[1:]
while command[0].startswith("--"):
    command.pop(0)
here = pathlib.Path({here!r})
(here / "srun").write_text(" ".join(sys.argv[1:]))
environments = [{{**os.environ, "SLURM_PROCID": str(i)}} for i in range({tasks})]
tasks = [subprocess.Popen(command, env=e) for e in environments]
codes = [None]
while None in codes:
    codes = [task.poll() for task in tasks]
    if any(codes):
        [task.send_signal(signal.SIGTERM) for task in tasks if task.poll() is None]
        codes = [task.wait() for task in tasks]
    time.sleep(0.02)
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""
SCANCEL = """\
#!/bin/sh
# --signal=TERM JOB: the tasks alone get it
[ "$*" = "--signal=TERM 77" ] && kill -TERM $(cat {here}/task-*)
"""
SCONTROL = """\
#!/bin/sh
# show job JOB, or requeue JOB
if [ "$1" = show ]; then
  echo "   PreemptEligibleTime=2026-01-01T00:00:00 $(cat {here}/preempt)"
else
  echo "$@" >> {here}/requeued
fi
"""
# Ready when its number is there. It stops on request, fails, or is deaf until the end.
TASK = """\
#!{python} -S
import os, pathlib, signal, sys, time
me, here = os.environ["SLURM_PROCID"], pathlib.Path({here!r})
if {manner!r} != "fails":
    kind = {{"stops": lambda *_: sys.exit(143), "finishes": signal.SIG_IGN}}[{manner!r}]
    signal.signal(signal.SIGTERM, kind)
(here / ("new-" + me)).write_text(str(os.getpid()) + os.linesep)
(here / ("new-" + me)).rename(here / ("task-" + me))
fails = me == "0" and {manner!r} == "fails"
while not (here / ("fail" if fails else "end")).exists():
    time.sleep(0.02)
sys.exit(fails)
"""


def executable(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class Job:
    """A batch script that runs, with all its tasks ready; ends when it is left."""

    def __init__(
        self, here: Path, manner: str, *, restarted: int = 0, preempted: str = "None"
    ):
        self.here = here
        names = {"here": str(here), "python": sys.executable, "tasks": TASKS}
        files = {"srun": SRUN, "scancel": SCANCEL, "scontrol": SCONTROL, "task": TASK}
        (here / "bin").mkdir()
        for name, text in files.items():
            executable(here / "bin" / name, text.format(manner=manner, **names))
        self.preempted(preempted)
        options = slurm.parser().parse_args(["--python=task", "--cpus-per-task=6"])
        script = here / "job.sh"
        script.write_text(slurm.script(options, RUN), encoding="utf-8")
        environment = {
            "PATH": f"{here / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "SLURM_JOB_ID": "77",
            "SLURM_RESTART_COUNT": str(restarted),
        }
        self.shell = subprocess.Popen(
            ["bash", str(script)],
            env=environment,
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 60
        while len(list(here.glob("task-*"))) < TASKS:
            assert time.monotonic() < deadline and self.shell.poll() is None
            time.sleep(0.02)

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *exception: object) -> None:
        """Leaves nothing behind, also after a test that failed."""
        self.fail()
        self.end()
        self.shell.kill()
        self.shell.communicate()

    def preempted(self, at: str) -> None:
        (self.here / "preempt").write_text(f"PreemptTime={at}\n")

    def tell_shell(self) -> None:
        self.shell.send_signal(signal.SIGUSR1)

    def tell_tasks(self) -> None:
        for task in self.here.glob("task-*"):
            os.kill(int(task.read_text()), signal.SIGTERM)

    def fail(self) -> None:
        (self.here / "fail").touch()

    def end(self) -> None:
        (self.here / "end").touch()

    def wait(self) -> tuple[int, bool, str]:
        """Returns the status, whether the job was put back, and what was said."""
        _, said = self.shell.communicate(timeout=30)
        requeued = self.here / "requeued"
        assert not requeued.exists() or requeued.read_text() == "requeue 77\n"
        return self.shell.returncode, requeued.exists(), said


def test_a_batch_script_asks_for_one_task_a_gpu_and_time_to_save():
    arguments = ["--nodes=4", "--gpus-per-node=8", "--partition=a100"]
    script = slurm.script(slurm.parser().parse_args(arguments), RUN)
    asked = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    for option in ("nodes=4", "ntasks-per-node=8", "gpus-per-node=8", "partition=a100"):
        assert f"#SBATCH --{option}" in asked
    assert f"#SBATCH --signal=B:USR1@{slurm.SAVE_SECONDS}" in asked
    # SLURM reads its options up to the first command.
    assert script.splitlines()[1 : 1 + len(asked)] == asked


def test_an_error_of_one_task_ends_the_job_although_the_others_end_with_143(tmp_path):
    with Job(tmp_path, "fails") as job:
        job.fail()
        assert job.wait() == (143, False, "")


def test_a_job_whose_time_is_nearly_over_saves_and_goes_back_into_the_queue(tmp_path):
    with Job(tmp_path, "stops", restarted=99) as job:
        job.tell_shell()
        assert job.wait() == (143, True, "")


def test_a_job_that_slurm_preempts_goes_back_into_the_queue(tmp_path):
    with Job(tmp_path, "stops") as job:
        job.preempted("2026-01-02T00:00:00")
        job.tell_tasks()
        assert job.wait() == (143, True, "")


def test_a_preemption_before_the_last_start_does_not_hide_an_error(tmp_path):
    with Job(tmp_path, "fails", preempted="2026-01-01T00:00:00") as job:
        job.fail()
        assert job.wait() == (143, False, "")


def test_a_job_whose_tasks_somebody_stops_stays_out_of_the_queue(tmp_path):
    with Job(tmp_path, "stops") as job:
        job.tell_tasks()
        assert job.wait() == (143, False, "")


@pytest.mark.parametrize("told", [False, True])
def test_a_run_that_comes_to_its_end_is_over_told_or_not(tmp_path, told):
    with Job(tmp_path, "finishes") as job:
        if told:
            job.tell_shell()
            time.sleep(0.3)  # of the 120 s: srun still runs when the shell has noted it
        job.end()
        assert job.wait() == (0, False, "")


def test_a_job_goes_back_into_the_queue_so_many_times_and_no_more(tmp_path):
    with Job(tmp_path, "stops", restarted=100) as job:
        job.tell_shell()
        said = "not requeued: restarted 100 times before (--restarts)\n"
        assert job.wait() == (143, False, said)


def test_the_tasks_get_their_cores_and_no_cpu_in_place_of_a_gpu(tmp_path):
    with Job(tmp_path, "finishes") as job:
        number = (tmp_path / "task-0").read_text().strip()
        environment = Path(f"/proc/{number}/environ")
        assert b"\0JAX_PLATFORMS=cuda\0" in b"\0" + environment.read_bytes()
        job.end()
        job.wait()
        # Since SLURM 22.05 srun does not take it over from sbatch.
        assert "--cpus-per-task=6 task -m" in (tmp_path / "srun").read_text()
