"""The command line: flags to plain calls.

python -m robustscanner_jax.main --config=configs/quickstart.py --workdir=RUN
"""

import difflib
import logging
import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from robustscanner_jax import config as config_lib
from robustscanner_jax import distributed, evaluate, predict, train
from robustscanner_jax.artefact import GraphFormat
from robustscanner_jax.backends import optional
from robustscanner_jax.charset import Charset
from robustscanner_jax.data.rendered import open_named
from robustscanner_jax.export.run import (
    COMPARISON_SOURCE,
    comparison_rows,
    export_artefact,
)
from robustscanner_jax.export.triton import export_triton
from robustscanner_jax.inference import PRECISIONS, load_artefact
from robustscanner_jax.metrics import PROTOCOLS
from robustscanner_jax.open_weights import open_weights
from robustscanner_jax.reading import Reader
from robustscanner_jax.recognizer import Recognizer
from robustscanner_jax.reference import run_import
from robustscanner_jax.weights import StorageDtype, Weights, save_weights

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Config file for --mode=train, such as configs/quickstart.py."
)
_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "predict", "import", "export", "serve"],
    "What to do.",
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Run folder: written by train, read by the other modes."
)
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "Weights file to read with; with neither, the weights that ship."
)
_MODEL = flags.DEFINE_string(
    "model", None, "evaluate, predict, serve: folder of an export to read with."
)
_BACKEND = flags.DEFINE_enum(
    "backend",
    "auto",
    ["auto", "jax", "onnxruntime", "openvino"],
    "--model: what computes; auto takes the fastest that is installed.",
)
_PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    list(PRECISIONS),
    "--model: bfloat16, with openvino alone, is faster and not exact.",
)
_BENCHMARK = flags.DEFINE_multi_string(
    "benchmark", [], "evaluate: NAME:PATH, in any known format; repeatable."
)
_PROTOCOL = flags.DEFINE_enum(
    "protocol", "36", list(PROTOCOLS), "evaluate: how texts are compared."
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "evaluate: folder for the results. predict: folder for pictures of where the "
    "network looked. import: the weights file. export: the file or folder to write.",
)
_SOURCE = flags.DEFINE_enum(
    "source", None, ["mmocr", "mmocr0", "paddle"], "import: where a checkpoint is from."
)
_FORMAT = flags.DEFINE_enum(
    "format",
    "weights",
    ["weights", "stablehlo", "onnx", "triton"],
    "export: one file of weights, the folder of a graph, or a Triton repository.",
)
_COMPARE = flags.DEFINE_string(
    "compare",
    COMPARISON_SOURCE,
    "export: images on which the graph must read as the live network does.",
)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    None,
    ["float32", "float16"],
    "import, export: of stored kernels; float32 for import, float16 for export.",
)
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "import: .pth or .pdparams file.")
_GOLDEN = flags.DEFINE_string(
    "golden", None, "import: .npz of the reference's outputs to compare with."
)
_CHARSET = flags.DEFINE_string(
    "charset", None, "import: dictionary file of the checkpoint, a character a line."
)
_MAX_LEN = flags.DEFINE_integer(
    "max_len", None, "import: decoding steps of the checkpoint, where not the usual."
)
_HOST = flags.DEFINE_string(
    "host", "127.0.0.1", "serve: address; only this machine reaches the default."
)
_PORT = flags.DEFINE_integer("port", 8000, "serve: port; 0 takes a free one.")

CACHE_FOLDER = Path(
    os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "robustscanner_jax"
)


def _need(flag: flags.FlagHolder, mode: str) -> str:
    if not flag.value:
        raise app.UsageError(f"--mode={mode} needs --{flag.name}")
    return flag.value


def _weights() -> Weights:
    """Returns what --workdir or --weights names; with neither, what ships."""
    if _WORKDIR.value and _WEIGHTS.value:
        raise app.UsageError("give --workdir or --weights, not both")
    return open_weights(_WORKDIR.value or _WEIGHTS.value)


def _reader() -> Reader:
    """Returns what reads: an export, or a network with weights."""
    if not _MODEL.value:
        return Recognizer(_weights())
    if _WORKDIR.value or _WEIGHTS.value:
        raise app.UsageError("give --model, or one of --workdir and --weights")
    return load_artefact(_MODEL.value, _BACKEND.value, precision=_PRECISION.value)


def _train(paths: list[str]) -> int:
    if paths:
        raise app.UsageError(f"--mode=train takes no files, got {paths}")
    if _CONFIG.value is None:
        raise app.UsageError("--mode=train needs --config")
    workdir = _need(_WORKDIR, "train")
    distributed.initialise()
    try:
        train.run(_CONFIG.value, Path(workdir))
    except train.Preempted as stop:
        print(f"stopped: {stop}; the same command continues", file=sys.stderr)
        return 128 + signal.SIGTERM
    return 0


def _evaluate(paths: list[str]) -> int:
    if paths or not _BENCHMARK.value:
        raise app.UsageError(
            "--mode=evaluate needs --benchmark=NAME:PATH, and no files"
        )
    named = [evaluate.parse_benchmark(text) for text in _BENCHMARK.value]
    benchmarks = [(name, open_named(source)) for name, source in named]
    output = Path(_OUTPUT.value) if _OUTPUT.value else None
    evaluate.run(_reader(), benchmarks, protocol=_PROTOCOL.value, output=output)
    return 0


def _predict(paths: list[str]) -> int:
    if not paths:
        raise app.UsageError("--mode=predict needs image files or folders")
    if _MODEL.value and _OUTPUT.value:
        raise app.UsageError("an export has no attention maps: --output needs weights")
    pictures = Path(_OUTPUT.value) if _OUTPUT.value else None
    return int(predict.run(_reader(), paths, pictures=pictures) > 0)


def _characters() -> str | None:
    return Charset.from_file(_CHARSET.value).characters if _CHARSET.value else None


def _import(paths: list[str]) -> int:
    if paths:
        raise app.UsageError(f"--mode=import takes no files, got {paths}")
    certificate = run_import(
        _need(_SOURCE, "import"),
        _need(_CHECKPOINT, "import"),
        _need(_OUTPUT, "import"),
        golden=_GOLDEN.value,
        characters=_characters(),
        max_len=_MAX_LEN.value,
        dtype=cast(StorageDtype, _DTYPE.value or "float32"),
    )
    print(certificate.text())
    return int(not certificate.ok)


def _export(paths: list[str]) -> int:
    if paths:
        raise app.UsageError(f"--mode=export takes no files, got {paths}")
    output, weights = _need(_OUTPUT, "export"), _weights()
    if _FORMAT.value == "weights":
        dtype = cast(StorageDtype, _DTYPE.value or "float16")
        save_weights(output, weights, dtype=dtype)
        print(f"{output}: {weights.model.width}, {dtype}, {weights.card}")
        return 0
    rows = comparison_rows(weights.preprocessing, _COMPARE.value)
    if _FORMAT.value == "triton":
        manifest = export_triton(weights, output, rows=rows)
    else:
        graph_format = cast(GraphFormat, _FORMAT.value)
        manifest = export_artefact(
            weights, output, graph_format=graph_format, rows=rows
        )
    print(f"{output}: {_FORMAT.value}, {manifest.comparison}")
    return 0


def _serve(paths: list[str]) -> int:
    if paths:
        raise app.UsageError(f"--mode=serve takes no files, got {paths}")
    for package in ("starlette", "uvicorn", "prometheus_client", "python_multipart"):
        optional(package, "--mode=serve")
    from robustscanner_jax.serving.server import run_server

    # From the environment: a command line is seen by every process of the machine.
    token = os.environ.get("ROBUSTSCANNER_TOKEN")
    run_server(_reader(), host=_HOST.value, port=_PORT.value, token=token)
    return 0


MODES: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "import": _import,
    "export": _export,
    "serve": _serve,
}


def main(argv: list[str]) -> None:
    """Runs one mode; leaves with 0, or 1 after an error in one sentence."""
    # On CPU as well: 13 s of compilation become half a second.
    jax.config.update("jax_compilation_cache_dir", str(CACHE_FOLDER / "compiled"))
    try:
        status = MODES[_MODE.value](argv[1:])
    except (ValueError, OSError, train.TrainingStopped) as error:
        if absl_logging.vlog_is_on(1):  # --verbosity=1 shows where
            raise
        sys.exit(f"error: {error}")
    sys.exit(status)


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; a missing config, or a key it lacks, is one sentence."""
    path = _config_path(argv)
    if path is not None and not path.is_file():
        sys.exit(f"error: --config={path}: there is no such file")
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError, TypeError) as error:
        sys.exit(f"error: {_unknown_key(path, argv) or error}")


def _config_path(argv: list[str]) -> Path | None:
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name.lstrip("-") == "config":
            return Path((value if equals else following).partition(":")[0])
    return None


def _unknown_key(path: Path | None, argv: list[str]) -> str:
    """Returns what is wrong with a `--config.KEY=...`, and the nearest key there is."""
    known = config_lib.keys(runpy.run_path(str(path))["get_config"]()) if path else []
    for argument in argv:
        key = argument.partition("=")[0].removeprefix("--config.")
        if argument.startswith("--config.") and key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            return f"--config has no key {key!r}{hint}"
    return ""


def entry() -> None:
    """The installed command `robustscanner`."""
    # The libraries' own chatter only from warnings on; ours from information on.
    absl_logging.set_verbosity(absl_logging.WARNING)
    ours = logging.getLogger("robustscanner_jax")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    app.run(main, flags_parser=_parse)


if __name__ == "__main__":
    entry()
