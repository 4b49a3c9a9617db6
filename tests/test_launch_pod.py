"""What a worker of a TPU pod does when it is told to install and to start."""

import os
import signal
import stat
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from launch import tpu_pod

REPOSITORY = Path(__file__).resolve().parent.parent
POD = ["--name=words", "--zone=us-east5-b"]
RUN = ["--config=configs/small.py", "--workdir=/shared/runs/small"]
# The worker's Python, which installs one that makes no environment.
PYTHON = """\
#!/bin/sh
echo "$@" > pip_asked
mkdir -p .uv/bin
printf '#!/bin/sh\\nfor word; do echo "$word"; done > uv_asked
mkdir -p .venv/bin && ln -sf /bin/true .venv/bin/pip\\n' > .uv/bin/uv
chmod +x .uv/bin/uv
"""
TRAINER = """\
#!{python} -S
import os, time
print("started, on", os.environ["JAX_PLATFORMS"], flush=True)
time.sleep(60)
"""


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class Origin:
    """A repository that workers clone, with one file `state`."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        names = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
        command = ["git", *names, *arguments]
        done = subprocess.run(
            command, cwd=self.folder, check=True, stdout=subprocess.PIPE, text=True
        )
        return done.stdout.strip()

    def commit(self, state: str) -> str:
        """Returns the hash of a new commit of the branch that is checked out."""
        (self.folder / "state").write_text(state)
        self.git("add", "state")
        self.git("commit", "-q", "-m", state)
        return self.git("rev-parse", "HEAD")


class Worker:
    """A home folder, and what install and start do in it."""

    def __init__(self, home: Path):
        self.home = home
        executable(home / "bin/python3", PYTHON)
        (home / "user").mkdir()
        self.program = home / "user" / tpu_pod.FOLDER

    def do(self, line: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.home / 'bin'}{os.pathsep}{os.environ['PATH']}"
        home = self.home / "user"
        return subprocess.run(
            ["bash", "-c", line],
            cwd=home,
            env=os.environ | {"PATH": path, "HOME": str(home)},
            capture_output=True,
            text=True,
        )

    def install(self, origin: Origin, revision: str = ""):
        given = [f"--revision={revision}"] if revision else []
        repository = f"--repository={origin.folder}"
        options = tpu_pod.parser().parse_args(["install", *POD, repository, *given])
        return self.do(tpu_pod.install_line(options))

    def state(self) -> str:
        return (self.program / "state").read_text()


@pytest.fixture
def origin(tmp_path) -> Origin:
    return Origin(tmp_path / "origin")


@pytest.fixture
def worker(tmp_path) -> Worker:
    return Worker(tmp_path / "worker")


@pytest.mark.parametrize("revision", ["", "main", "dev"])
def test_a_second_installation_of_a_branch_brings_what_was_added_since(
    origin, worker, revision
):
    origin.commit("first")
    if revision == "dev":
        origin.git("checkout", "-q", "-b", "dev")
        origin.commit("of dev")
    assert worker.install(origin, revision).returncode == 0
    newest = origin.commit("second")
    done = worker.install(origin, revision)
    assert (done.returncode, done.stdout) == (0, f"{newest}\n")
    assert worker.state() == "second"


def test_a_worker_gets_a_python_that_the_program_runs_on_whatever_its_own(
    origin, worker
):
    origin.commit("first")
    assert worker.install(origin).returncode == 0
    # What systems that keep their Python to themselves allow.
    pip = (worker.program / "pip_asked").read_text()
    assert pip.startswith("-m pip install ") and "--target .uv uv" in pip
    uv = (worker.program / "uv_asked").read_text().splitlines()
    assert uv[0] == "venv" and uv[-1] == ".venv"
    allowed = SpecifierSet(uv[uv.index("--python") + 1])
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    needed = SpecifierSet(project["requires-python"])
    for version, given in (("3.10.12", False), ("3.11.2", True), ("3.12.9", True)):
        assert allowed.contains(version) == given
        assert needed.contains(version) == given


def test_a_tag_that_was_moved_is_followed_and_a_hash_stays(origin, worker):
    first = origin.commit("first")
    origin.git("tag", "release")
    assert worker.install(origin, "release").stdout == f"{first}\n"
    second = origin.commit("second")
    origin.git("tag", "--force", "release")
    assert worker.install(origin, "release").stdout == f"{second}\n"
    assert worker.install(origin, first[:10]).stdout == f"{first}\n"
    assert worker.state() == "first"


def test_a_branch_that_was_written_anew_is_followed(origin, worker):
    origin.commit("first")
    origin.commit("mistake")
    worker.install(origin, "main")
    origin.git("reset", "-q", "--hard", "HEAD~1")
    newest = origin.commit("second")
    assert worker.install(origin, "main").stdout == f"{newest}\n"


def test_another_repository_is_not_the_one_that_was_cloned_before(
    origin, worker, tmp_path
):
    origin.commit("first")
    worker.install(origin, "main")
    other = Origin(tmp_path / "other")
    newest = other.commit("elsewhere")
    assert worker.install(other, "main").stdout == f"{newest}\n"


def test_a_revision_that_does_not_exist_is_an_error_and_moves_nothing(origin, worker):
    origin.commit("first")
    worker.install(origin, "main")
    origin.commit("second")
    done = worker.install(origin, "no-such-branch")
    assert done.returncode != 0 and "Needed a single revision" in done.stderr
    assert worker.state() == "first"


@pytest.fixture
def started(worker):
    """Returns a function that starts training on the worker; all are ended after it."""
    executable(
        worker.program / ".venv/bin/python", TRAINER.format(python=sys.executable)
    )
    number, log = (
        worker.program.parent / tpu_pod.PID,
        worker.program.parent / tpu_pod.LOG,
    )
    numbers = set()

    def start() -> subprocess.CompletedProcess[str]:
        lines = log.read_text().count("\n") if log.exists() else 0
        done = worker.do(tpu_pod.start_line(RUN))
        if done.returncode == 0:
            numbers.add(int(number.read_text()))
            wait_until(lambda: log.read_text().count("\n") > lines)
        return done

    yield start
    for one in numbers:
        if running(one):
            os.kill(one, signal.SIGKILL)


def running(number: int) -> bool:
    try:
        return bool(Path(f"/proc/{number}/cmdline").read_bytes())
    except FileNotFoundError:
        return False


def wait_until(holds) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_second_start_is_refused_while_the_first_run_goes_on(worker, started):
    number = worker.program.parent / tpu_pod.PID
    assert started().returncode == 0
    first = number.read_text()
    done = started()
    assert done.returncode == 1 and "a run goes on here" in done.stderr
    assert number.read_text() == first and running(int(first))


def test_a_start_after_the_first_run_has_ended_adds_to_its_log(worker, started):
    number = worker.program.parent / tpu_pod.PID
    assert started().returncode == 0
    first = int(number.read_text())
    os.kill(first, signal.SIGTERM)
    wait_until(lambda: not running(first))
    assert started().returncode == 0
    assert int(number.read_text()) != first
    log = (worker.program.parent / tpu_pod.LOG).read_text()
    assert log == "started, on tpu,cpu\n" * 2


def test_a_number_that_another_program_has_after_a_restart_refuses_nothing(
    worker, started
):
    with subprocess.Popen(["sleep", "60"]) as other:
        (worker.program.parent / tpu_pod.PID).write_text(f"{other.pid}\n")
        assert started().returncode == 0
        other.kill()
