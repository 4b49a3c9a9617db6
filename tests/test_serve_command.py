"""The command that serves an export, as a container runs it: without JAX."""

import dataclasses
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from exported import needs, some_rows, some_weights

needs(
    "starlette",
    "uvicorn",
    "httpx",
    "python_multipart",
    "prometheus_client",
    "onnxruntime",
)

import httpx  # noqa: E402
from served import FakeReader, png  # noqa: E402

from robustscanner_jax.export import run  # noqa: E402
from robustscanner_jax.serving import __main__ as command  # noqa: E402
from robustscanner_jax.serving import server  # noqa: E402
from robustscanner_jax.serving.__main__ import main  # noqa: E402
from robustscanner_jax.serving.limits import Limits  # noqa: E402
from robustscanner_jax.views import Views  # noqa: E402

REPOSITORY = Path(__file__).resolve().parent.parent
# An import of JAX fails as where it is not installed.
WITHOUT_JAX = """
import runpy, sys
sys.modules["jax"] = sys.modules["flax"] = None
sys.argv[0] = "serving"
runpy.run_module("robustscanner_jax.serving", run_name="__main__")
"""


def test_an_export_is_served_without_jax_until_sigterm(tmp_path):
    needs("onnx")
    export = tmp_path / "export"
    rows = some_rows(3, 16)
    run.export_artefact(some_weights(), export, graph_format="onnx", rows=rows)
    flags = [f"--model={export}", "--port=0", "--backend=onnxruntime"]
    process = subprocess.Popen(
        [sys.executable, "-c", WITHOUT_JAX, *flags, "--drain-seconds=0"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ
        | {"PYTHONPATH": str(REPOSITORY), "ROBUSTSCANNER_TOKEN": "secret"},
    )
    try:
        lines = iter(process.stderr.readline, "")
        url = next(m[0] for line in lines if (m := re.search(r"http://\S+", line)))
        headers = {"Content-Type": "image/png"}
        assert httpx.post(f"{url}/read", content=b"").status_code == 401
        headers["Authorization"] = "Bearer secret"
        while httpx.get(f"{url}/readyz").status_code != 200:
            pass
        answer = httpx.post(f"{url}/read", content=png(90), headers=headers)
        assert set(answer.json()["readings"][0]) == {
            "text",
            "confidence",
            "characters",
            "character_confidences",
            "angle",
            "closer",
        }
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model=nowhere"], "error: nowhere: not found; expected a folder"),
        (["--model=tests"], "error: tests: no export, it has no manifest.json; exp"),
        (["--model=x", "--images=300"], "can never enter a queue of 256"),
        (["--model=x", "--deadline-seconds=inf"], "deadline_seconds: expected at most"),
        (["--model=x", "--body-seconds=-1"], "body_seconds: expected at least 0.001"),
        (["--model=x", "--threads=-1"], "error: --threads: expected at least 0, got"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(capsys, flags, message):
    assert main(flags) == 1
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "views"),
    [
        ([], Views()),
        (["--look-closer"], Views(look_closer=True)),
        (["--rotate-tall=2"], Views(rotate_tall=2.0)),
    ],
)
def test_the_views_are_those_that_the_flags_say(monkeypatch, flags, views):
    given = {}
    monkeypatch.setattr(command, "load_artefact", lambda *_, **__: FakeReader())
    monkeypatch.setattr(server, "run_server", lambda *_, **more: given.update(more))
    assert main(["--model=x", *flags]) == 0
    assert given["views"] == views


def test_a_ratio_below_one_is_refused_before_the_export_is_opened(capsys):
    assert main(["--model=x", "--rotate-tall=0.5"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("error: rotate_tall: expected at least 1")


def test_a_token_that_no_client_can_send_is_named_before_the_service_starts(
    capsys, monkeypatch
):
    monkeypatch.setenv("ROBUSTSCANNER_TOKEN", "\n")
    monkeypatch.setattr(command, "load_artefact", lambda *_, **__: FakeReader())
    assert main(["--model=x", "--port=0"]) == 1
    printed = capsys.readouterr().err
    assert "error: the token: expected printable ASCII" in printed
    assert "listening" not in printed


def test_a_missing_package_gives_one_sentence(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["--model=x"]) == 1
    printed = capsys.readouterr().err
    assert printed == "error: serving needs the package uvicorn: pip install uvicorn\n"


@pytest.fixture
def options(capsys, monkeypatch):
    """The help: what it says of each flag, in one line."""
    monkeypatch.setenv("COLUMNS", "500")  # no text is wrapped
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out.partition("options:\n")[2].partition("\n\n")[0]
    texts = [" ".join(text.split()) for text in re.split(r"\n  (?=-)", shown)]
    return {text.partition(" ")[0]: text for text in texts}


def test_help_and_docs_name_every_limit_with_its_default(options):
    docs = (REPOSITORY / "docs" / "deploy.md").read_text()
    for field in dataclasses.fields(Limits):
        flag = "--" + field.name.replace("_", "-")
        assert options[flag].endswith(
            f"{field.metadata['help']} (default: {field.default})"
        )
        default = re.sub(r"\.0$", "", str(field.default))
        assert f"`{flag}={default}`" in docs


def test_the_help_names_the_backends_and_every_default(options):
    assert "{auto,jax,onnxruntime,openvino}" in options["--backend"]
    without = [flag for flag, text in options.items() if "(default: " not in text]
    assert without == ["-h,", "--model", "--rotate-tall"]
    assert "off by default" in options["--rotate-tall"]
