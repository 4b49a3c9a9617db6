"""The launchers of pods and clusters, against stand-ins that record what they are told.

One stand-in goes further and runs what it is told on two "workers" of this machine.
"""

import json
import os
import stat
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from training import REPOSITORY, tiny_config, write_words

from launch import commands, gke, slurm, tpu_pod
from robustscanner_jax import config as config_lib

RUN = ["--", "--config=configs/small.py", "--workdir=/bucket/runs/small"]
POD = ["--name=words", "--zone=us-east5-b"]
NEW_POD = [*POD, "--type=v5litepod-64", "--version=v2-alpha-tpuv5-lite"]
CLONE = ["--repository=https://example.org/r.git"]
TPU_SET = [
    "tpu",
    "--name=words",
    "--image=registry/words:1",
    "--bucket=words-1",
    "--accelerator=tpu-v5-lite-podslice",
    "--topology=4x8",
]
GPU_SET = [
    "gpu",
    "--name=words",
    "--image=registry/words:1",
    "--bucket=words-1",
    "--accelerator=nvidia-h100-80gb",
    "--hosts=8",
    "--chips=8",
]

RECORDER = """\
#!{python} -S
import json, os, sys
told = {{"tool": os.path.basename(sys.argv[0]), "arguments": sys.argv[1:]}}
if not sys.stdin.isatty():
    told["input"] = sys.stdin.read()
with open({log!r}, "a") as file:
    print(json.dumps(told), file=file)
if "describe" in sys.argv:
    print("ACTIVE")
sys.exit({status})
"""


def executable(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Returns a function that gives what the stand-ins were told, in order."""
    log, folder = tmp_path / "told.jsonl", tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    def install(status: int = 0) -> None:
        text = RECORDER.format(python=sys.executable, log=str(log), status=status)
        for tool in ("gcloud", "kubectl", "sbatch"):
            executable(folder / tool, text)

    def read() -> list[dict]:
        if not log.exists():
            return []
        return [json.loads(line) for line in log.read_text().splitlines()]

    install()
    read.install = install
    return read


def test_a_pod_is_created_installed_and_started_in_this_order(told):
    assert tpu_pod.main(["run", *NEW_POD, *CLONE, "--spot", *RUN]) == 0
    create, install, start = (t["arguments"] for t in told())
    assert create == [
        *("compute", "tpus", "tpu-vm", "create", "words", "--zone=us-east5-b"),
        *("--accelerator-type=v5litepod-64", "--version=v2-alpha-tpuv5-lite", "--spot"),
    ]
    for ssh in (install, start):
        assert ssh[:5] == ["compute", "tpus", "tpu-vm", "ssh", "words"]
        assert "--worker=all" in ssh
    assert "git clone -q https://example.org/r.git" in install[-1]
    assert "jax[tpu]" in install[-1]
    assert " -m robustscanner_jax.main --config=configs/small.py" in start[-1]
    assert "ROBUSTSCANNER_COORDINATOR=auto" in start[-1]


def test_a_queued_pod_is_waited_for_before_anything_is_installed(told):
    assert tpu_pod.main(["run", *NEW_POD, *CLONE, "--queued", *RUN]) == 0
    verbs = [t["arguments"][2:4] for t in told()]
    queue = "queued-resources"
    assert verbs == [[queue, "create"], [queue, "describe"], *[["tpu-vm", "ssh"]] * 2]
    assert "--runtime-version=v2-alpha-tpuv5-lite" in told()[0]["arguments"]


def test_creating_a_queued_pod_waits_for_it(told):
    assert tpu_pod.main(["create", *NEW_POD, "--queued"]) == 0
    assert [t["arguments"][3] for t in told()] == ["create", "describe"]


def test_a_queue_that_fails_ends_the_waiting(monkeypatch, tmp_path):
    executable(tmp_path / "gcloud", "#!/bin/sh\necho FAILED\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(commands.LaunchError, match="expected ACTIVE, got FAILED"):
        commands.Commands(dry_run=False).wait_for(
            ["gcloud"], ready="ACTIVE", failed=("FAILED",)
        )


# Fails as often as its first line says, then there is capacity.
FLAKY = """\
#!/bin/sh
asked=$(($(cat {count}) + 1))
echo $asked > {count}
[ $asked -gt {failures} ] && echo {state} && exit
exit 1
"""


def asking(tmp_path, monkeypatch, *, failures: int, state: str = "ACTIVE"):
    """Waits for a gcloud that fails first; returns how often it was asked."""
    count = tmp_path / "count"
    count.write_text("0")
    text = FLAKY.format(count=count, failures=failures, state=state)
    executable(tmp_path / "gcloud", text)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    tool = commands.Commands(dry_run=False)
    try:
        tool.wait_for(["gcloud"], ready="ACTIVE", failed=("FAILED",), seconds=0)
    finally:
        asked = int(count.read_text())
    return asked


def test_a_network_that_is_gone_for_a_moment_does_not_end_the_waiting(
    tmp_path, monkeypatch
):
    failures = commands.FAILURES_IN_A_ROW - 1
    assert asking(tmp_path, monkeypatch, failures=failures) == failures + 1


def test_a_question_that_always_fails_ends_the_waiting(tmp_path, monkeypatch):
    said = "expected ACTIVE, got status 1, 5 times in a row"
    with pytest.raises(commands.LaunchError, match=said):
        asking(tmp_path, monkeypatch, failures=100)
    assert (tmp_path / "count").read_text() == "5\n"


@pytest.mark.parametrize(
    ("action", "worker", "part"),
    [("logs", "0", "tail -n +1 -F"), ("stop", "all", "kill -TERM")],
)
def test_logs_come_from_one_worker_and_stopping_tells_all(action, worker, part, told):
    assert tpu_pod.main([action, *POD]) == 0
    [ssh] = (t["arguments"] for t in told())
    assert f"--worker={worker}" in ssh and part in ssh[-1]


def test_a_failed_command_ends_the_launch_with_its_status_named(told, capsys):
    told.install(status=3)
    assert tpu_pod.main(["run", *NEW_POD, *CLONE, *RUN]) == 2
    assert len(told()) == 1
    assert "ended with status 3" in capsys.readouterr().err


def test_a_tool_that_is_missing_is_one_sentence(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.main(["--nodes=1", *RUN]) == 2
    assert "sbatch: not found" in capsys.readouterr().err


LOCAL = ["--", "--config=c.py", "--workdir=runs/words"]
BAD = [
    (tpu_pod.main, ["run", *NEW_POD, *RUN], "--repository"),
    (tpu_pod.main, ["run", *NEW_POD, *CLONE], "--config=... and --workdir=..."),
    (tpu_pod.main, ["run", *NEW_POD, *CLONE, *LOCAL], "share"),
    (tpu_pod.main, ["run", *POD, *CLONE, "--type=v9-1", *RUN], "--type"),
    (tpu_pod.main, ["create", *POD, "--type=v4-8"], "--version"),
    (tpu_pod.main, ["stop", "--name=Words", "--zone=us-east5-b"], "--name"),
    (tpu_pod.main, ["stop", "--name=words", "--zone=us"], "--zone"),
    (tpu_pod.main, ["stop", *POD, *RUN], "nothing after --"),
    (slurm.main, ["--nodes=0", *RUN], "--nodes"),
    (slurm.main, ["--time=soon", *RUN], "--time"),
    (slurm.main, ["--restarts=-1", *RUN], "--restarts"),
    (slurm.main, ["--name=a b", *RUN], "--name"),
    (slurm.main, LOCAL, "--workdir"),
    (slurm.main, [], "--config"),
    (gke.main, [*TPU_SET, "--topology=8", *RUN], "--topology"),
    (gke.main, [*TPU_SET, "--topology=3x3", *RUN], "multiple of"),
    (gke.main, [*TPU_SET, "--image=a b", *RUN], "--image"),
    (gke.main, [*TPU_SET, *LOCAL], "below /bucket"),
    (gke.main, [*GPU_SET, "--hosts=0", *RUN], "--hosts"),
    (gke.main, [*GPU_SET, "--accelerator=H 100", *RUN], "--accelerator"),
    (gke.main, [*GPU_SET, "--restarts=-1", *RUN], "--restarts"),
    (gke.main, [*GPU_SET, f"--name={'w' * 41}", *RUN], "--name"),
]


@pytest.mark.parametrize(("main", "arguments", "said"), BAD)
def test_what_cannot_work_is_one_sentence_before_anything_is_created(
    main, arguments, said, told, capsys
):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert told() == []


GOOD = [
    (tpu_pod.main, ["run", *NEW_POD, *CLONE, "--queued", *RUN]),
    (slurm.main, RUN),
    (gke.main, [*GPU_SET, *RUN]),
]


@pytest.mark.parametrize(("main", "arguments"), GOOD)
def test_a_dry_run_prints_what_a_run_does_and_does_nothing(
    main, arguments, told, capsys
):
    assert main(["--dry-run", *arguments] if main is slurm.main else
                [arguments[0], "--dry-run", *arguments[1:]]) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert told() == []
    assert main(arguments) == 0
    assert len(told()) == printed.count("\n+ ") + printed.startswith("+ ")
    for command in told():
        assert command["tool"] in printed
        assert command.get("input", "") in printed


def applied(told) -> tuple[dict, dict]:
    [call] = told()
    assert call["arguments"] == ["apply", "-f", "-"]
    jobset = yaml.safe_load(call["input"])
    return jobset, jobset["spec"]["replicatedJobs"][0]["template"]["spec"]


def test_a_tpu_jobset_has_one_pod_for_each_machine_of_the_slice(told):
    assert gke.main([*TPU_SET, "--spot", *RUN]) == 0
    jobset, job = applied(told)
    assert jobset["kind"] == "JobSet" and jobset["metadata"]["name"] == "words"
    assert job["parallelism"] == job["completions"] == 32 // 4
    pod = job["template"]["spec"]
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x8",
        "cloud.google.com/gke-spot": "true",
    }
    assert {
        "key": "cloud.google.com/gke-spot",
        "operator": "Equal",
        "value": "true",
        "effect": "NoSchedule",
    } in pod["tolerations"]
    [container] = pod["containers"]
    assert container["command"][1:] == ["-m", "robustscanner_jax.main", *RUN[1:]]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}


def test_a_gpu_jobset_tells_each_pod_its_number_and_where_the_first_is(told):
    assert gke.main([*GPU_SET, *RUN]) == 0
    _, job = applied(told)
    pod = job["template"]["spec"]
    assert "cloud.google.com/gke-spot" not in pod["nodeSelector"]
    [container] = pod["containers"]
    given = {e["name"]: e.get("value") or e["valueFrom"] for e in container["env"]}
    assert given["ROBUSTSCANNER_COORDINATOR"] == "words-workers-0-0.words:8476"
    assert given["ROBUSTSCANNER_NUM_PROCESSES"] == str(job["completions"]) == "8"
    path = given["ROBUSTSCANNER_PROCESS_ID"]["fieldRef"]["fieldPath"]
    assert path.endswith("job-completion-index']")
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}


def test_the_image_finds_the_driver_where_gke_mounts_it():
    lines = (REPOSITORY / "launch/gke/Dockerfile").read_text().splitlines()
    assert "ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64" in lines


def platforms_of(launch: list[str], told) -> str:
    """Returns what a JobSet tells JAX to use."""
    assert gke.main([*launch, *RUN]) == 0
    _, job = applied(told)
    [container] = job["template"]["spec"]["containers"]
    [found] = [e["value"] for e in container["env"] if e["name"] == "JAX_PLATFORMS"]
    return found


@pytest.mark.skipif(
    find_spec("libtpu") is not None, reason="a TPU may be there, and be found"
)
@pytest.mark.parametrize(("launch", "line"), [(TPU_SET, tpu_pod), (GPU_SET, slurm)])
def test_a_machine_without_its_accelerator_is_an_error_and_no_training_on_the_cpu(
    launch, line, told
):
    platforms = platforms_of(launch, told)
    assert platforms == line.PLATFORMS
    environment = os.environ | {"JAX_PLATFORMS": platforms, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "in backends" in done.stderr, done.stderr


@pytest.mark.parametrize("launch", [TPU_SET, GPU_SET])
def test_the_bucket_is_mounted_so_that_checkpoints_can_be_published(told, launch):
    """A published checkpoint is a renamed folder, which gcsfuse refuses by default."""
    assert gke.main([*launch, *RUN]) == 0
    _, job = applied(told)
    [bucket] = [v for v in job["template"]["spec"]["volumes"] if v["name"] == "bucket"]
    options = bucket["csi"]["volumeAttributes"]["mountOptions"].split(",")
    assert "rename-dir-limit=200000" in options


def test_a_flag_that_looks_like_a_variable_of_kubernetes_stays_as_it_is(told):
    assert gke.main([*GPU_SET, *RUN, "--config.charset=$(HOME)"]) == 0
    _, job = applied(told)
    [container] = job["template"]["spec"]["containers"]
    assert container["command"][-1] == "--config.charset=$$(HOME)"


WORKERS = range(4)
# They find each other as tasks of SLURM do: JAX knows those.
GCLOUD = """\
#!{python}
import os, subprocess, sys
lines = [a.removeprefix("--command=") for a in sys.argv if a.startswith("--command=")]
for line in lines:
    workers = []
    for worker in range(4):
        home = os.path.join({home!r}, str(worker))
        os.makedirs(home, exist_ok=True)
        task = {{"JOB_ID": "{job}", "STEP_NODELIST": "localhost", "NTASKS": "4",
                "PROCID": str(worker), "LOCALID": str(worker)}}
        slurm = {{"SLURM_" + name: value for name, value in task.items()}}
        told = {{**os.environ, **slurm, "HOME": home}}
        workers.append(subprocess.Popen(["bash", "-c", line], cwd=home, env=told))
    if any([worker.wait() for worker in workers]):
        sys.exit(1)
"""
GIT = """\
#!/bin/bash
# clone -q REPOSITORY FOLDER
if [ "$1" = clone ]; then mkdir "$4" && ln -s "$3"/* "$4"/; fi
"""
PYTHON = """\
#!/bin/bash
# -m pip install ... --target FOLDER uv; what that installs makes an environment.
set -eu
mkdir -p .uv/bin .venv/bin
printf '#!/bin/bash\\nexec env JAX_PLATFORMS=cpu {python} "$@"\\n' > .venv/bin/python
printf '#!/bin/bash\\n' | tee .venv/bin/pip > .uv/bin/uv
chmod +x .uv/bin/* .venv/bin/*
"""


@pytest.mark.slow
def test_a_pod_of_four_workers_trains(tmp_path, monkeypatch):
    tools, home, workdir = (tmp_path / n for n in ("bin", "home", "run"))
    tools.mkdir()
    job = str(os.getpid())
    executable(
        tools / "gcloud",
        GCLOUD.format(python=sys.executable, home=str(home), job=job),
    )
    executable(tools / "git", GIT)
    executable(tools / "python3", PYTHON.format(python=sys.executable))
    monkeypatch.setenv("PATH", str(tools), prepend=os.pathsep)
    flags = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
    monkeypatch.setenv("XLA_FLAGS", flags)
    labels = write_words(tmp_path / "words")
    config = tiny_config(labels, train__steps=2, data__evaluate=(f"held:{labels}",))
    config_lib.to_json(config, tmp_path / "config.json")
    source = tmp_path / "config.py"
    source.write_text(
        "import json\nfrom pathlib import Path\nfrom ml_collections import ConfigDict\n"
        "def get_config():\n"
        "    path = Path(__file__).with_name('config.json')\n"
        "    return ConfigDict(json.loads(path.read_text()))\n",
        encoding="utf-8",
    )
    clone = [f"--repository={REPOSITORY}"]
    flags = ["--", f"--config={source}", f"--workdir={workdir}"]
    assert tpu_pod.main(["run", *NEW_POD, *clone, *flags]) == 0
    logs = [home / str(worker) / tpu_pod.LOG for worker in WORKERS]
    pids = [int((home / str(w) / tpu_pod.PID).read_text()) for w in WORKERS]
    deadline = time.monotonic() + 300
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.5)
    text = "\n".join(log.read_text(encoding="utf-8") for log in logs)
    assert not any(map(alive, pids)), text
    assert all(f"process {worker} of 4" in text for worker in WORKERS), text
    assert "on 4 cpu device(s)" in text
    assert (workdir / "checkpoints" / "2").is_dir(), text
    assert json.loads((workdir / "accuracy.json").read_text())


def alive(pid: int) -> bool:
    """Returns whether a process runs; one that ended and nobody waits for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("kind", ["gke", "beam"])
def test_an_image_is_built_from_requirements_that_were_copied_before(kind):
    folder = REPOSITORY / "launch" / kind
    copied: list[str] = []
    for line in (folder / "Dockerfile").read_text().splitlines():
        word, *rest = line.split()
        if word == "COPY":
            copied += rest[:-1]
        if word == "RUN":
            break
    wanted = ["requirements.txt"]
    for name in wanted:
        assert "." in copied or name in copied
        lines = (REPOSITORY / name).read_text().splitlines()
        wanted += [line.split()[1] for line in lines if line.startswith("-r ")]
    assert len(wanted) > 1
    ignored = (folder / "Dockerfile.dockerignore").read_text().splitlines()
    assert {".git", ".venv"} <= set(ignored)
