"""The command line: what it asks for, what it prints, and how it ends."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from absl import app
from absl.flags import FLAGS
from absl.testing import flagsaver
from training import (
    REPOSITORY,
    encode,
    main,
    noise_image,
    reader,
    reading_weights,
    tiny_config,
    write_words,
)

from robustscanner_jax import flags as command_flags
from robustscanner_jax import main as command
from robustscanner_jax import modes
from robustscanner_jax.recognizer import Recognizer
from robustscanner_jax.views import Views
from robustscanner_jax.weights import load_weights, save_weights


@pytest.fixture
def call(monkeypatch):
    """Returns a function: paths and flags -> exit status; runs in this process."""
    update = jax.config.update
    monkeypatch.setattr(
        jax.config,
        "update",
        lambda key, value: key.endswith("_dir") or update(key, value),
    )

    def run(*paths, **flags):
        if not FLAGS.is_parsed():
            FLAGS.mark_as_parsed()
        with flagsaver.flagsaver(**flags), pytest.raises(SystemExit) as caught:
            command.main(["main", *map(str, paths)])
        return caught.value.code

    return run


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "some.safetensors"
    save_weights(path, reading_weights())
    return str(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(3):
        cv2.imwrite(str(folder / f"{i}.png"), noise_image(i))
    return folder


@pytest.mark.parametrize(
    ("flags", "paths", "message"),
    [
        ({"mode": "train"}, [], "--mode=train needs --config"),
        ({"mode": "train"}, ["a.png"], r"takes no files, got \['a.png'\]"),
        (
            {"mode": "train", "config": {}, "workdir": "gs://bucket/run"},
            [],
            "gs://bucket/run is an address: mount it",
        ),
        ({"mode": "evaluate"}, [], "needs --benchmark=NAME:PATH"),
        (
            {"mode": "evaluate", "benchmark": ["a:b"]},
            ["a.png"],
            r"takes no files but --benchmark=NAME:PATH, got \['a.png'\]",
        ),
        ({"mode": "predict"}, [], "needs image files, folders or lists"),
        (
            {"mode": "predict", "workdir": "a", "weights": "b"},
            ["a.png"],
            "--workdir or --weights, not both",
        ),
        (
            {"mode": "predict", "model": "exported", "allowlist": "01"},
            ["a.png"],
            "an export has its --allowlist from --mode=export",
        ),
        ({"mode": "export"}, [], "--mode=export needs --output"),
        ({"mode": "export"}, ["a.png"], "takes no files"),
        ({"mode": "import"}, [], "--mode=import needs --source"),
        ({"mode": "import", "source": "mmocr"}, [], "needs --checkpoint"),
        ({"mode": "import"}, ["a.png"], "takes no files"),
        (
            {"mode": "import", "dtype": "int8"},
            [],
            "--dtype=int8 is for --mode=export with --format=onnx",
        ),
        *(
            (
                {"mode": "export", "dtype": "int8", "format": graph_format},
                [],
                "--dtype=int8 needs --format=onnx or --format=triton",
            )
            for graph_format in ("weights", "stablehlo")
        ),
        *(
            (
                {"mode": "export", "dtype": "float16", "format": graph_format},
                [],
                "--dtype needs --format=weights: a graph is float32, or int8",
            )
            for graph_format in ("onnx", "stablehlo", "triton")
        ),
    ],
)
def test_a_mode_asks_for_what_it_needs(flags, paths, message):
    if not FLAGS.is_parsed():
        FLAGS.mark_as_parsed()
    with flagsaver.flagsaver(**flags), pytest.raises(app.UsageError, match=message):
        modes.run(flags["mode"], paths)


@pytest.mark.parametrize("flag", ["workdir", "weights"])
def test_an_export_in_place_of_weights_is_sent_to_its_flag(flag, tmp_path):
    if not FLAGS.is_parsed():
        FLAGS.mark_as_parsed()
    (tmp_path / "manifest.json").write_text("{}")
    message = f"--{flag}={tmp_path} is an export: give it to --model"
    with flagsaver.flagsaver(**{flag: str(tmp_path)}):
        with pytest.raises(app.UsageError, match=message):
            modes.run("predict", ["a.png"])


def test_images_are_read_with_a_weights_file(call, weights, images, capsys):
    assert call(images, mode="predict", weights=weights) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    paths = sorted(images.iterdir())
    assert [line[0] for line in lines] == [str(p) for p in paths]
    assert [line[1] for line in lines] == [r.text for r in reader().read(paths)]


@pytest.mark.parametrize("closer", [False, True])
def test_unsure_images_are_read_closer_with_the_flag(
    call, weights, images, tmp_path, capsys, closer
):
    paths = sorted(images.iterdir())
    expected = [r.text for r in reader().read(paths, look_closer=closer)]
    assert call(images, mode="predict", weights=weights, look_closer=closer) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in lines] == expected
    labels = write_words(tmp_path / "words")
    output, benchmark = str(tmp_path / "results"), [f"words:{labels}"]
    call(
        mode="evaluate",
        weights=weights,
        benchmark=benchmark,
        output=output,
        look_closer=closer,
    )
    table = json.loads((tmp_path / "results" / "accuracy.json").read_text())
    assert table["extra"]["look_closer"] == closer
    assert (table["sets"][0]["closer"] is not None) == closer


@pytest.mark.parametrize("ratio", [None, 1.5])
@pytest.mark.parametrize("closer", [False, True])
def test_the_service_reads_the_views_that_the_flags_say(
    call, weights, monkeypatch, ratio, closer
):
    from robustscanner_jax.serving import server

    given = {}
    monkeypatch.setattr(server, "run_server", lambda *_, **more: given.update(more))
    call(mode="serve", weights=weights, rotate_tall=ratio, look_closer=closer)
    assert given["views"] == Views(rotate_tall=ratio, look_closer=closer)


def test_only_the_characters_that_are_allowed_are_read(call, weights, images, capsys):
    assert call(images, mode="predict", weights=weights, allowlist="ab") == 0
    texts = [x.split("\t")[1] for x in capsys.readouterr().out.splitlines()]
    assert set("".join(texts)) <= set("ab")
    expected = Recognizer.load(weights, allowlist="ab", batch_size=8)
    assert texts == [r.text for r in expected.read(sorted(images.iterdir()))]


def test_an_unreadable_image_gives_status_one(call, weights, images, capsys):
    missing = images / "nowhere.png"
    assert call(images / "0.png", missing, mode="predict", weights=weights) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    assert captured.err == f"{missing}: No such file or directory\n"


def test_a_benchmark_is_evaluated_into_a_folder(call, weights, tmp_path, capsys):
    labels = write_words(tmp_path / "words")
    output = tmp_path / "results"
    status = call(
        mode="evaluate",
        weights=weights,
        benchmark=[f"words:{labels}"],
        output=str(output),
    )
    assert status == 0
    assert re.search(r"words +8 +0", capsys.readouterr().out)
    assert {p.name for p in output.iterdir()} == {
        "accuracy.json",
        "accuracy.md",
        "errors.html",
        "predictions.tsv",
        "samples",
    }
    extra = json.loads((output / "accuracy.json").read_text())["extra"]
    assert (extra["weights"], extra["step"]) == (str(weights), 0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"weights": "nowhere.safetensors"}, "nowhere.safetensors: not found"),
        ({"workdir": "/nowhere/run"}, "/nowhere/run: not found"),
    ],
)
def test_what_is_not_there_is_one_sentence(call, images, flags, message):
    status = call(images, mode="predict", **flags)
    assert status.startswith("error: ") and message in status
    assert "\n" not in status


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        ("words", "expected NAME:PATH"),
        ("words:/nowhere/words", "/nowhere/words: there is no such file or folder"),
    ],
)
def test_a_benchmark_that_is_not_there_is_one_sentence(
    call, weights, tmp_path, benchmark, message
):
    output = tmp_path / "results"
    status = call(
        mode="evaluate", weights=weights, benchmark=[benchmark], output=str(output)
    )
    assert status.startswith("error: ") and message in status
    assert not output.exists()


@pytest.mark.parametrize("mode", ["evaluate", "predict"])
def test_a_ratio_below_one_is_one_sentence(call, weights, images, tmp_path, mode):
    labels = write_words(tmp_path / "words")
    paths = [images] if mode == "predict" else []
    benchmark = [f"words:{labels}"] if mode == "evaluate" else []
    status = call(
        *paths, mode=mode, weights=weights, benchmark=benchmark, rotate_tall=0.5
    )
    assert status.startswith("error: rotate_tall: expected at least 1")


@pytest.mark.parametrize("mode", ["evaluate", "predict"])
@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("{}/file", "expected a folder, this is a file"),
        ("{}/file/in", "expected a folder that can be written to, .* cannot be"),
        ("/proc/x", "expected a folder that can be written to, /proc/x cannot be"),
        ("/proc", "expected a folder that can be written to, /proc cannot be"),
    ],
)
def test_results_that_cannot_be_written_are_told_before_anything_is_read(
    call, weights, images, tmp_path, monkeypatch, mode, output, message
):
    monkeypatch.setattr(modes, "_reader", None)
    (tmp_path / "file").touch()
    labels = write_words(tmp_path / "words")
    output = output.format(tmp_path)
    status = call(
        *([images] if mode == "predict" else []),
        mode=mode,
        weights=weights,
        benchmark=[f"words:{labels}"] if mode == "evaluate" else [],
        output=output,
    )
    assert re.fullmatch(f"error: --output={output}: {message}.*", status)


@pytest.mark.parametrize(
    ("flags", "output", "message"),
    [
        ({"mode": "import"}, "{}", "--output={}: expected a file to write"),
        ({"mode": "import"}, "{}/file/x", "--output={}/file/x: expected a file in"),
        ({"mode": "export"}, "{}", "--output={}: expected a file to write"),
        ({"mode": "export"}, "/proc/x/y", "--output=/proc/x/y: expected a file in"),
        (
            {"mode": "export", "format": "onnx"},
            "{}",
            "--output: {}: not empty, and not an older export; nothing was changed",
        ),
        (
            {"mode": "export", "format": "onnx"},
            "/proc/x",
            "--output=/proc/x: expected a folder that can be made or replaced",
        ),
        (
            {"mode": "export", "format": "triton"},
            "{}/file",
            "--output: {}/file: a file is in the way of the folder {}/file/robust",
        ),
    ],
)
def test_an_export_or_import_that_cannot_be_written_is_told_before_the_work(
    call, tmp_path, monkeypatch, flags, output, message
):
    for name in ("_weights", "run_import", "comparison_rows"):
        monkeypatch.setattr(modes, name, None)
    (tmp_path / "file").touch()
    if flags["mode"] == "import":
        flags = {**flags, "source": "mmocr", "checkpoint": "x.pth"}
    status = call(**flags, output=output.format(tmp_path))
    assert status.startswith("error: " + message.format(tmp_path, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("nowhere", "not found"),
        ("file", "no export, it is a file"),
        ("", "no export, it has no manifest.json"),
    ],
)
def test_a_model_that_is_no_export_is_one_sentence(
    call, images, tmp_path, model, reason
):
    (tmp_path / "file").touch()
    status = call(images, mode="predict", model=str(tmp_path / model))
    expected = "expected a folder that --mode=export wrote"
    assert status == f"error: {tmp_path / model}: {reason}; {expected}"


def test_a_list_of_images_is_read_as_lines_of_json(call, weights, images, capsys):
    path = images.parent / "list.txt"
    path.write_text(f"{images.name}/1.png\tlabel\n{images.name}/0.png\n")
    assert call(path, mode="predict", weights=weights, jsonl=True) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["path"] for line in lines] == [
        str(images / "1.png"),
        str(images / "0.png"),
    ]
    expected = reader().read([images / "1.png", images / "0.png"])
    assert [line["text"] for line in lines] == [r.text for r in expected]


def test_a_usage_error_is_one_line(call):
    status = call(mode="predict")
    sentence = "--mode=predict needs image files, folders or lists"
    assert status == f"error: {sentence} (--help lists the flags)"


def test_weights_are_exported_as_a_file_that_reads_the_same(call, weights, tmp_path):
    output = tmp_path / "copy.safetensors"
    status = call(mode="export", weights=weights, output=str(output), dtype="float32")
    assert status == 0
    assert load_weights(output).charset == load_weights(weights).charset
    before, after = (
        load_weights(p).variables["params"]["classifier"]["kernel"]
        for p in (weights, output)
    )
    np.testing.assert_array_equal(before, after)


def test_a_data_folder_with_nothing_in_it_is_one_sentence(call, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    labels = write_words(tmp_path / "words")
    config = tiny_config(labels, data__train=(str(tmp_path / "empty"),))
    monkeypatch.setattr(command_flags, "CONFIG", type("Flag", (), {"value": config}))
    monkeypatch.setattr(modes.distributed, "initialise", lambda: None)
    status = call(mode="train", workdir=str(tmp_path / "run"))
    assert status == f"error: {tmp_path / 'empty'}: the folder is empty"


def parse(*arguments):
    """Returns the sentence with which a command line is refused."""
    with pytest.raises(SystemExit) as caught:
        command._parse(["main", *map(str, arguments)])
    return caught.value.code


def test_a_part_that_a_config_does_not_have_is_one_sentence(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    sentence = parse("--config=configs/tiny_cpu.py:fifth")
    expected = (
        r"error: configs/tiny_cpu\.py, line \d+: "
        "expected :first, :second, :third or :fourth, got fifth"
    )
    assert re.fullmatch(expected, sentence)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("def get_config():\n    return {}['foo']", "line 2: KeyError: 'foo'"),
        (
            "def get_config():\n    return half(0)\n\ndef half(x):\n    return x + ''",
            "line 5: TypeError: unsupported operand",
        ),
        ("import json\ndef get_config():\n    json.loads('')", "line 3: Expecting"),
        (
            "from configs import default\ndef get_config():\n"
            "    config = default.get_config()\n    config.train.stepz = 5",
            'line 4: AttributeError: Key "stepz" does not exist and cannot be added '
            'since the config is locked. Did you mean "steps" instead of "stepz"?',
        ),
        ("x = 1\ndef get_config()\n    pass", "line 2: expected ':'"),
        ("import no_such_thing", "line 1: ModuleNotFoundError: No module named"),
        ("x = 1", ": expected a function get_config, there is none"),
        (
            "def get_config():\n    pass",
            "TypeError: get_config returned None, expected",
        ),
    ],
    ids=[
        "key",
        "in a helper",
        "value",
        "misspelt",
        "syntax",
        "import",
        "no function",
        "no config",
    ],
)
def test_an_error_in_a_config_file_is_one_sentence_with_its_line(
    tmp_path, body, expected
):
    path = tmp_path / "mine.py"
    path.write_text(body, encoding="utf-8")
    sentence = parse(f"--config={path}", "--config.train.steps=3")
    assert sentence.startswith(f"error: {path}") and expected in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("verbosity", [["--verbosity=1"], ["-v", "1"]])
def test_verbosity_shows_where_an_error_in_a_config_file_comes_from(
    tmp_path, verbosity
):
    path = tmp_path / "mine.py"
    path.write_text("def get_config():\n    return {}['foo']", encoding="utf-8")
    with pytest.raises(KeyError, match="foo"):
        command._parse(["main", "--config", str(path), *verbosity])


@pytest.mark.slow
def test_without_flags_the_command_says_what_is_missing():
    done = main()
    assert done.returncode == 1
    assert done.stdout + done.stderr == (
        "error: --mode=train needs --config (--help lists the flags)\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/nowhere.py", "--workdir=/x/run"], "configs/nowhere.py"),
        (
            ["--config=configs/tiny.py", "--config.train.step=3", "--workdir=/x/run"],
            "'train.step'; did you mean train.steps?",
        ),
        (["--config=configs/tiny.py"], "--mode=train needs --workdir"),
        (
            [
                "--config=configs/tiny.py",
                "--config.model.width=huge",
                "--workdir=/x/run",
            ],
            "error: config.model.width: expected one of",
        ),
        (["--mode=guess"], "should be one of"),
        (
            ["--config=configs/finetune.py", "--workdir=/x/run", "--weights=a"],
            "has no use for --weights; to start from a file: --config.train.init",
        ),
        (["--mode=predict", "--protocol=exact", "a"], "has no use for --protocol"),
        (["--mode=export", "--look_closer", "--output=a"], "no use for --look_closer"),
        (["--mode=predict", "--precision=bfloat16", "a"], "--precision needs --model"),
        (
            ["--mode=export", "--output=a", "--format=onnx", "--dtype=float16"],
            "--dtype needs --format=weights",
        ),
    ],
    ids=[
        "no config",
        "unknown key",
        "no workdir",
        "wrong value",
        "no mode",
        "train with weights",
        "flag of another mode",
        "switch of another mode",
        "live with precision",
        "graph with dtype",
    ],
)
def test_a_wrong_command_line_is_told_without_a_traceback(arguments, message):
    done = main(*arguments)
    assert done.returncode == 1
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("verbosity", "traced"), [(0, False), (1, True)])
def test_a_stop_by_ctrl_c_is_one_word(verbosity, traced):
    interrupted = (
        "import sys; from robustscanner_jax import main, modes\n"
        "def run(*_): raise KeyboardInterrupt\n"
        "modes.run = run\n"
        f"sys.argv = ['main', '--verbosity={verbosity}']; main.entry()"
    )
    done = subprocess.run(
        [sys.executable, "-c", interrupted], capture_output=True, text=True
    )
    assert done.returncode in (130, -signal.SIGINT)
    assert ("Traceback" in done.stderr) == traced
    assert traced or done.stderr == "interrupted\n"


def test_a_file_name_that_is_no_unicode_is_printed_as_it_is(tmp_path):
    """With strict output as well: a terminal's is, other than that of a pipe."""
    folder = os.fsencode(tmp_path)
    for name in (b"caf\xe9.png", b"z.png"):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(encode(noise_image(0)))
    done = subprocess.run(
        [sys.executable, "-m", "robustscanner_jax.main", "--mode=predict", folder],
        capture_output=True,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONIOENCODING": "utf-8:strict", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split(b"\t")[0] for line in done.stdout.splitlines()]
    assert lines == [folder + b"/caf\xe9.png", folder + b"/z.png"]


@pytest.mark.slow
def test_help_lists_the_flags_of_every_mode():
    done = main("--help")
    for flag in ("--mode", "--config", "--benchmark", "--checkpoint", "--format"):
        assert f"\n  {flag}:" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("run", ["-m robustscanner_jax.main", "-c"])
def test_help_begins_with_an_example_of_each_mode(run):
    """Under the installed command as well, whose script has no docstring."""
    script = "from robustscanner_jax.main import entry; entry()"
    code = [script] if run == "-c" else []
    done = subprocess.run(
        [sys.executable, *run.split(), *code, "--help"],
        capture_output=True,
        cwd=REPOSITORY,
        text=True,
    )
    head, _, _ = done.stdout.partition("\nflags:\n")
    for mode in modes._MODES:
        assert f"--mode={mode} " in head or mode == "train"
    assert "main --config=configs/quickstart.py --workdir=RUN\n" in head  # trains
    assert "--config.KEY=VALUE overrides any key\nof configs/default.py" in head
    assert len(head.splitlines()) < 20
