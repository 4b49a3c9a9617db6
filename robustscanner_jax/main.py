"""The command line: flags to plain calls.

python -m robustscanner_jax.main --config=configs/quickstart.py --workdir=RUN
"""

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import jax
from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from robustscanner_jax import evaluate, predict, train
from robustscanner_jax.data.rendered import open_named
from robustscanner_jax.metrics import PROTOCOLS
from robustscanner_jax.recognizer import Recognizer, load_run
from robustscanner_jax.weights import save_weights

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Config file for --mode=train, such as configs/quickstart.py."
)
_MODE = flags.DEFINE_enum(
    "mode", "train", ["train", "evaluate", "predict", "import", "export"], "What to do."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Run folder: written by train, read by evaluate and predict."
)
_WEIGHTS = flags.DEFINE_string(
    "weights", None, "Weights file for evaluate and predict, in place of --workdir."
)
_BENCHMARK = flags.DEFINE_multi_string(
    "benchmark", [], "evaluate: NAME:PATH, in any known format; repeatable."
)
_PROTOCOL = flags.DEFINE_enum(
    "protocol", "36", list(PROTOCOLS), "evaluate: how texts are compared."
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "evaluate: folder for the results. import: the weights file."
)
_SOURCE = flags.DEFINE_enum(
    "source", None, ["mmocr", "mmocr0", "paddle"], "import: where a checkpoint is from."
)
_FORMAT = flags.DEFINE_enum(
    "format", "weights", ["weights"], "export: weights, one file to hand around."
)
_DTYPE = flags.DEFINE_enum(
    "dtype", "float16", ["float32", "float16"], "export, import: of stored kernels."
)
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "import: .pth or .pdparams file.")
_GOLDEN = flags.DEFINE_string(
    "golden", None, "import: .npz of the reference's outputs to compare with."
)

CACHE_FOLDER = Path(
    os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "robustscanner_jax"
)


def _need(flag: flags.FlagHolder, mode: str) -> str:
    if not flag.value:
        raise app.UsageError(f"--mode={mode} needs --{flag.name}")
    return flag.value


def _recognizer() -> Recognizer:
    if _WORKDIR.value and _WEIGHTS.value:
        raise app.UsageError("give --workdir or --weights, not both")
    return Recognizer.load(_WORKDIR.value or _WEIGHTS.value, batch_size=64)


def _train(paths: list[str]) -> int:
    if paths:
        raise app.UsageError(f"--mode=train takes no files, got {paths}")
    if _CONFIG.value is None:
        raise app.UsageError("--mode=train needs --config")
    workdir = _need(_WORKDIR, "train")
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
    evaluate.run(_recognizer(), benchmarks, protocol=_PROTOCOL.value, output=output)
    return 0


def _predict(paths: list[str]) -> int:
    if not paths:
        raise app.UsageError("--mode=predict needs image files or folders")
    return int(predict.run(_recognizer(), paths) > 0)


def _import(paths: list[str]) -> int:
    if paths:
        raise app.UsageError(f"--mode=import takes no files, got {paths}")
    from robustscanner_jax.reference.run import run_import

    certificate = run_import(
        _need(_SOURCE, "import"),
        _need(_CHECKPOINT, "import"),
        _need(_OUTPUT, "import"),
        golden=_GOLDEN.value,
    )
    print(certificate.text())
    return int(not certificate.ok)


def _export(paths: list[str]) -> int:
    if paths:
        raise app.UsageError(f"--mode=export takes no files, got {paths}")
    output = _need(_OUTPUT, "export")
    weights = load_run(Path(_need(_WORKDIR, "export")))
    save_weights(output, weights, dtype=_DTYPE.value)
    print(f"{output}: {weights.card}")
    return 0


MODES: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "import": _import,
    "export": _export,
}


def main(argv: list[str]) -> None:
    """Runs one mode; leaves with 0, or 1 after an error in one sentence."""
    # On CPU as well: 13 s of compilation become half a second.
    jax.config.update("jax_compilation_cache_dir", str(CACHE_FOLDER / "compiled"))
    try:
        status = MODES[_MODE.value](argv[1:])
    except (ValueError, FileNotFoundError, train.TrainingStopped) as error:
        if absl_logging.vlog_is_on(1):
            raise
        print(f"error: {error}", file=sys.stderr)
        status = 1
    sys.exit(status)


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
    app.run(main)


if __name__ == "__main__":
    entry()
