"""What the command line can do: each mode turns flags into plain calls."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

from absl import app
from absl.flags import FLAGS, FlagHolder

from robustscanner_jax import (
    distributed,
    evaluate,
    flags,
    output_path,
    predict,
    train,
)
from robustscanner_jax.artefact import GraphFormat
from robustscanner_jax.charset import Charset
from robustscanner_jax.data.rendered import open_named
from robustscanner_jax.error_page.run import write_errors
from robustscanner_jax.export.run import (
    CALIBRATION_SOURCE,
    comparison_rows,
    export_artefact,
)
from robustscanner_jax.export.triton import export_triton
from robustscanner_jax.inference import ArtefactReader, load_artefact
from robustscanner_jax.open_weights import SHIPPED, is_export, open_weights
from robustscanner_jax.packages import optional
from robustscanner_jax.recognizer import Recognizer
from robustscanner_jax.reference import run_import
from robustscanner_jax.views import Views
from robustscanner_jax.weights import StorageDtype, Weights, save_weights

_WEIGHTS = (flags.WORKDIR, flags.WEIGHTS, flags.ALLOWLIST)
_READERS = (*_WEIGHTS, flags.MODEL, flags.BACKEND, flags.PRECISION)
_VIEWS = (flags.ROTATE_TALL, flags.LOOK_CLOSER)
_USED: dict[str, tuple[FlagHolder, ...]] = {
    "train": (flags.CONFIG, flags.WORKDIR),
    "evaluate": (*_READERS, *_VIEWS, flags.BENCHMARK, flags.PROTOCOL, flags.OUTPUT),
    "predict": (*_READERS, *_VIEWS, flags.OUTPUT, flags.JSONL),
    "import": (flags.SOURCE, flags.CHECKPOINT, flags.OUTPUT, flags.GOLDEN,
               flags.CHARSET, flags.MAX_LEN, flags.DTYPE),
    "export": (*_WEIGHTS, flags.OUTPUT, flags.FORMAT, flags.COMPARE, flags.DTYPE),
    "serve": (*_READERS, *_VIEWS, flags.HOST, flags.PORT),
}  # fmt: skip
_ALL = [flag for flag in vars(flags).values() if isinstance(flag, FlagHolder)]


def run(mode: str, paths: list[str]) -> int:
    """Runs a mode with the flags as given, and returns the exit status.

    Raises:
      UsageError: flags that the mode needs are missing, or it has no use for one.
    """
    used = {flag.name for flag in (flags.MODE, *_USED[mode])}
    for name in sorted({flag.name for flag in _ALL} - used):
        if FLAGS[name].present:
            hint = ""
            if (mode, name) == ("train", "weights"):
                hint = "; to start from a file: --config.train.init_weights=FILE"
            elif name == "config":
                hint = "; run folders, weights and exports have their own"
            raise app.UsageError(f"--mode={mode} has no use for --{name}{hint}")
    return _MODES[mode](paths)


def _need(flag: FlagHolder, mode: str) -> str:
    if not flag.value:
        raise app.UsageError(f"--mode={mode} needs --{flag.name}")
    return flag.value


def _results_folder() -> Path | None:
    """Returns the folder that --output names, made before there is work to lose."""
    if not flags.OUTPUT.value:
        return None
    return output_path.make_folder(flags.OUTPUT.value)


def _weights() -> Weights:
    """Returns what --workdir or --weights names; with neither, what ships."""
    if flags.WORKDIR.value and flags.WEIGHTS.value:
        raise app.UsageError("give --workdir or --weights, not both")
    return open_weights(
        flags.WORKDIR.value or flags.WEIGHTS.value, flags.ALLOWLIST.value
    )


def _reader() -> Recognizer | ArtefactReader:
    """Returns what reads: an export, or a network with weights."""
    if not flags.MODEL.value:
        for flag in (flags.BACKEND, flags.PRECISION):
            if FLAGS[flag.name].present:
                raise app.UsageError(f"--{flag.name} needs --model, an export")
        for flag in (flags.WORKDIR, flags.WEIGHTS):
            if flag.value and is_export(flag.value):
                raise app.UsageError(
                    f"--{flag.name}={flag.value} is an export: give it to --model"
                )
        return Recognizer(_weights())
    if flags.WORKDIR.value or flags.WEIGHTS.value:
        raise app.UsageError("give --model, or one of --workdir and --weights")
    if flags.ALLOWLIST.value is not None:
        raise app.UsageError(
            "--model: an export has its --allowlist from --mode=export"
        )
    return load_artefact(
        flags.MODEL.value, flags.BACKEND.value, precision=flags.PRECISION.value
    )


def _train(paths: list[str]) -> int:
    if paths:
        raise app.UsageError(f"--mode=train takes no files, got {paths}")
    if flags.CONFIG.value is None:
        raise app.UsageError("--mode=train needs --config")
    workdir = _need(flags.WORKDIR, "train")
    if "://" in workdir:
        raise app.UsageError(
            f"--workdir={workdir} is an address: mount it, and give the folder"
        )
    distributed.initialise()
    try:
        train.run(flags.CONFIG.value, Path(workdir))
    except train.Preempted as stop:
        print(f"stopped: {stop}; the same command continues", file=sys.stderr)
        return 128 + signal.SIGTERM
    return 0


def _evaluate(paths: list[str]) -> int:
    if paths:
        raise app.UsageError(
            f"--mode=evaluate takes no files but --benchmark=NAME:PATH, got {paths}"
        )
    if not flags.BENCHMARK.value:
        raise app.UsageError("--mode=evaluate needs --benchmark=NAME:PATH")
    named, views = evaluate.parse_benchmarks(flags.BENCHMARK.value), _views()
    benchmarks = [(name, open_named(source)) for name, source in named]
    output = _results_folder()
    reader = _reader()
    card = reader.weights.card
    evaluation = evaluate.read_benchmarks(
        reader,
        benchmarks,
        protocol=flags.PROTOCOL.value,
        views=views,
        weights=evaluate.WeightsRead(
            _reader_path(), card.get("step"), card.get("allowlist")
        ),
    )
    evaluate.print_table(evaluation)
    if output is not None:
        evaluate.write_results(evaluation, output)
        write_errors(evaluation, reader, output / "errors.html")
    return 0


def _views() -> Views:
    return Views(
        rotate_tall=flags.ROTATE_TALL.value, look_closer=flags.LOOK_CLOSER.value
    )


def _reader_path() -> str:
    """Returns what `_reader` opens, as it was named."""
    named = flags.MODEL.value or flags.WORKDIR.value or flags.WEIGHTS.value
    return named or SHIPPED[0]


def _predict(paths: list[str]) -> int:
    if not paths:
        raise app.UsageError("--mode=predict needs image files, folders or lists")
    if flags.MODEL.value and flags.OUTPUT.value:
        raise app.UsageError("an export has no attention maps: --output needs weights")
    views, pictures = _views(), _results_folder()
    failed = predict.run(
        _reader(),
        paths,
        pictures=pictures,
        views=views,
        jsonl=flags.JSONL.value,
    )
    return int(failed > 0)


def _characters() -> str | None:
    return (
        Charset.from_file(flags.CHARSET.value).characters
        if flags.CHARSET.value
        else None
    )


def _import(paths: list[str]) -> int:
    if paths:
        raise app.UsageError(f"--mode=import takes no files, got {paths}")
    if flags.DTYPE.value == "int8":
        raise app.UsageError("--dtype=int8 is for --mode=export with --format=onnx")
    source = _need(flags.SOURCE, "import")
    checkpoint = _need(flags.CHECKPOINT, "import")
    certificate = run_import(
        source,
        checkpoint,
        output_path.check_file(_need(flags.OUTPUT, "import")),
        golden=flags.GOLDEN.value,
        characters=_characters(),
        max_len=flags.MAX_LEN.value,
        dtype=cast(StorageDtype, flags.DTYPE.value or "float32"),
    )
    print(certificate.text())
    return int(not certificate.ok)


def _export(paths: list[str]) -> int:
    if paths:
        raise app.UsageError(f"--mode=export takes no files, got {paths}")
    int8 = flags.DTYPE.value == "int8"
    if int8 and flags.FORMAT.value not in ("onnx", "triton"):
        raise app.UsageError("--dtype=int8 needs --format=onnx or --format=triton")
    if flags.DTYPE.value and not int8 and flags.FORMAT.value != "weights":
        raise app.UsageError(
            "--dtype needs --format=weights: a graph is float32, or int8"
        )
    output = _need(flags.OUTPUT, "export")
    if flags.FORMAT.value == "weights":
        output_path.check_file(output)
    elif flags.FORMAT.value == "triton":
        output_path.check_repository(output)
    else:
        output_path.check_export(output)
    weights = _weights()
    if flags.FORMAT.value == "weights":
        dtype = cast(StorageDtype, flags.DTYPE.value or "float16")
        save_weights(output, weights, dtype=dtype)
        print(f"{output}: {weights.model.width}, {dtype}, {weights.card}")
        return 0
    rule = weights.preprocessing
    allowed = weights.card.get("allowlist")
    rows = comparison_rows(rule, flags.COMPARE.value, characters=allowed)
    calibration = comparison_rows(rule, CALIBRATION_SOURCE) if int8 else None
    if flags.FORMAT.value == "triton":
        manifest = export_triton(weights, output, rows=rows, calibration=calibration)
    else:
        graph_format = cast(GraphFormat, flags.FORMAT.value)
        manifest = export_artefact(
            weights,
            output,
            graph_format=graph_format,
            rows=rows,
            calibration=calibration,
        )
    print(f"{output}: {flags.FORMAT.value}, {manifest.comparison}")
    return 0


def _serve(paths: list[str]) -> int:
    if paths:
        raise app.UsageError(f"--mode=serve takes no files, got {paths}")
    for package in ("starlette", "uvicorn", "prometheus_client", "python_multipart"):
        optional(package, "--mode=serve")
    from robustscanner_jax.serving.server import run_server

    # From the environment: a command line is seen by every process of the machine.
    token, views = os.environ.get("ROBUSTSCANNER_TOKEN"), _views()
    run_server(
        _reader(),
        host=flags.HOST.value,
        port=flags.PORT.value,
        token=token,
        views=views,
    )
    return 0


_MODES: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "import": _import,
    "export": _export,
    "serve": _serve,
}
