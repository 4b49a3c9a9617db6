"""The container and cluster files name what is there, and their steps run."""

import dataclasses
import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from exported import needs

needs("starlette", "uvicorn", "httpx", "python_multipart", "prometheus_client")

import httpx  # noqa: E402

from robustscanner_jax.serving.__main__ import TOKEN_VARIABLE  # noqa: E402
from robustscanner_jax.serving.limits import Limits  # noqa: E402
from robustscanner_jax.serving.measures import Measures  # noqa: E402
from robustscanner_jax.serving.server import LAST_REQUESTS_SECONDS  # noqa: E402

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / "launch" / "serve"


def instructions() -> list[tuple[str, str]]:
    """Returns (keyword, rest) of each instruction of the Dockerfile."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.M)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


def manifests() -> dict[str, dict]:
    documents = yaml.safe_load_all((FOLDER / "kubernetes.yaml").read_text())
    return {document["kind"]: document for document in documents}


def longest_stop(**limits) -> float:
    """Returns the seconds from SIGTERM to the end of the service, at most."""
    limits = Limits(**limits)
    seconds = limits.drain_seconds + LAST_REQUESTS_SECONDS
    return seconds + limits.body_seconds + limits.deadline_seconds


def flags_of(arguments: list[str]) -> dict[str, str]:
    return dict(flag.removeprefix("--").split("=") for flag in arguments)


def test_the_cluster_waits_longer_than_the_service_takes_to_stop():
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    flags = flags_of(pod["containers"][0]["args"])
    fields = {field.name for field in dataclasses.fields(Limits)}
    limits = {name.replace("-", "_"): value for name, value in flags.items()}
    limits = {k: float(v) for k, v in limits.items() if k in fields}
    assert "drain_seconds" in limits
    assert pod["terminationGracePeriodSeconds"] > longest_stop(**limits)
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    (service,) = compose["services"].values()
    assert float(service["stop_grace_period"].removesuffix("s")) > longest_stop()


def test_the_cluster_asks_for_what_the_service_has():
    parts = manifests()
    (container,) = parts["Deployment"]["spec"]["template"]["spec"]["containers"]
    probes = [
        container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")
    ]
    paths = [probe["httpGet"]["path"] for probe in probes]
    assert paths == ["/readyz", "/readyz", "/livez"]
    assert container["env"][0]["name"] == TOKEN_VARIABLE
    (metric,) = parts["HorizontalPodAutoscaler"]["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert f"\n{name} " in Measures().text().decode()
    target = float(metric["pods"]["target"]["averageValue"])
    assert target < Limits().queue_images
    port = int(flags_of(container["args"])["port"])
    assert container["ports"] == [{"name": "http", "containerPort": port}]


def test_compose_publishes_on_this_machine_alone_and_writes_nowhere():
    compose = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    (service,) = compose["services"].values()
    build = service["build"]
    context = (FOLDER / build["context"]).resolve()
    assert context == REPOSITORY and (context / build["dockerfile"]).is_file()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert list(service["environment"]) == [TOKEN_VARIABLE]


def test_what_the_image_copies_is_let_into_the_context():
    allowed = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    copied = [rest.split()[:-1] for word, rest in instructions() if word == "COPY"]
    names = {name for group in copied for name in group if group[0][0] not in "-$"}
    assert {f"!{name}" for name in names} == {one for one in allowed if one[0] == "!"}
    assert all((REPOSITORY / name).exists() for name in names)


@pytest.mark.slow
def test_the_steps_of_the_image_run_in_an_empty_folder(tmp_path):
    """Runs every COPY and RUN of the first stage, then the entry point.

    The folders of the image's root lie in `tmp_path`, and Python is this one. Installs
    packages into fresh environments: minutes, and a package index.
    """
    moved = {
        f"/{name}": f"{tmp_path}/{name}" for name in ("export-env", "env", "model")
    }
    moved["/weights.safetensors"] = f"{tmp_path}/weights.safetensors"
    moved["${WEIGHTS}"] = "weights/small.safetensors"

    def here(text: str) -> str:
        pattern = "|".join(
            rf"(?<![\w./-]){re.escape(name)}(?![\w.-])" for name in moved
        )
        return re.sub(pattern, lambda found: moved[found[0]], text)

    source = tmp_path / "src"
    source.mkdir()
    stage = 0
    for word, rest in instructions():
        stage += word == "FROM"
        if word == "COPY" and stage == 1:
            *names, target = here(rest).split()
            for name in names:
                copy = shutil.copytree if (REPOSITORY / name).is_dir() else shutil.copy
                copy(REPOSITORY / name, source / target)
        elif word == "RUN" and stage == 1:
            command = here(rest).replace("python -m venv", f"{sys.executable} -m venv")
            subprocess.run(command, shell=True, cwd=source, check=True)
        elif word in ("ENTRYPOINT", "CMD"):
            moved[word] = here(rest)
    command = json.loads(moved["ENTRYPOINT"]) + json.loads(moved["CMD"])
    command[-2:] = ["--host=127.0.0.1", "--port=0"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        lines = iter(process.stderr.readline, "")
        url = next(
            found[0] for one in lines if (found := re.search(r"http://\S+", one))
        )
        end = time.monotonic() + 60
        while httpx.get(f"{url}/readyz").status_code != 200:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert shlex.join(command).startswith(f"{tmp_path}/env/bin/python -m")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
