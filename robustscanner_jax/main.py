"""Trains a recogniser of word crops, measures it, and reads images with it.

python -m robustscanner_jax.main --config=configs/quickstart.py --workdir=RUN
python -m robustscanner_jax.main --mode=evaluate --workdir=RUN --benchmark=NAME:PATH
python -m robustscanner_jax.main --mode=predict sign.jpg folder/ list.txt
python -m robustscanner_jax.main --mode=import --source=mmocr --checkpoint=FILE.pth
    --output=imported.safetensors
python -m robustscanner_jax.main --mode=export --format=onnx --output=exported/
python -m robustscanner_jax.main --mode=serve --port=8000

The first line trains: that mode is the default. --config.KEY=VALUE overrides any key
of configs/default.py, such as --config.train.steps=1000. A list that predict reads is a
.txt or .tsv file, `path` or `path TAB label` a line, all relative to one folder: the
list's, the one above, or one within; or `path TAB JSON`, the words of a page as a text
detector found them.
"""

import difflib
import io
import logging
import os
import re
import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

import jax
from absl import app
from absl import flags as absl_flags
from absl import logging as absl_logging
from ml_collections import ConfigDict

from robustscanner_jax import config as config_lib
from robustscanner_jax import flags, logs, modes
from robustscanner_jax.health import TrainingStopped

CACHE_FOLDER = Path(
    os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "robustscanner_jax"
)


def main(argv: list[str]) -> None:
    """Runs one mode; leaves with its status, or 1 after an error in one sentence."""
    # On CPU as well: 13 s of compilation become half a second.
    jax.config.update("jax_compilation_cache_dir", str(CACHE_FOLDER / "compiled"))
    try:
        status = modes.run(flags.MODE.value, argv[1:])
    except app.UsageError as error:
        sys.exit(f"error: {error} (--help lists the flags)")
    except (ValueError, OSError, TrainingStopped) as error:
        if absl_logging.vlog_is_on(1):  # --verbosity=1 shows where
            raise
        sys.exit(f"error: {error}")
    sys.exit(status)


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; what is wrong with the config is one sentence."""
    keys = _config_keys(argv)
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if _traced(argv):
            raise
        sys.exit(f"error: {_unknown_key(keys, argv) or error}")


def _value(argv: list[str], *names: str) -> str | None:
    """Returns what a flag is given, before flags are parsed."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name.startswith("-") and name.lstrip("-") in names:
            return value if equals else following
    return None


def _traced(argv: list[str]) -> bool:
    """Returns whether --verbosity asks where an error comes from."""
    try:
        return int(_value(argv, "verbosity", "v") or 0) >= 1
    except ValueError:  # absl says what is wrong with it
        return False


def _config_keys(argv: list[str]) -> list[str]:
    """Returns the keys of the config that --config names, none where it names none.

    The file is run here, before the flags are parsed: its errors come with a location,
    and not inside another's message.
    """
    argument = _value(argv, "config")
    if argument is None:
        return []
    path, colon, part = argument.partition(":")
    if not Path(path).is_file():
        sys.exit(f"error: --config={path}: there is no such file")
    try:
        get_config = runpy.run_path(path).get("get_config")
        if get_config is None:
            raise ValueError("expected a function get_config, there is none")
        config = get_config(part) if colon else get_config()
        if not isinstance(config, ConfigDict):
            raise TypeError(f"get_config returned {config!r}, expected a ConfigDict")
        return config_lib.keys(config)
    except Exception as error:  # of any type: it is the user's code that ran
        if _traced(argv):
            raise
        sys.exit(f"error: {_located(error, path)}")


def _located(error: Exception, path: str) -> str:
    """Returns what went wrong in a config file, with the line where it did."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == path
    ]
    match error.args:
        case [KeyError(args=[str(reason)])]:
            # Of a locked config: between what is wrong and a hint it lists every field.
            reason = re.sub(" Other fields present: .*\n?", " ", reason).strip()
        case _:
            reason = str(error).removeprefix(f"{path}: ").partition("\n")[0]
    if not isinstance(error, ValueError):  # its text alone may be `'foo'`
        reason = f"{type(error).__name__}: {reason}"
    return f"{path}, line {lines[-1]}: {reason}" if lines else f"{path}: {reason}"


def _unknown_key(known: list[str], argv: list[str]) -> str:
    """Returns what is wrong with a `--config.KEY=...`, and the nearest key there is."""
    for argument in argv:
        key = argument.partition("=")[0].removeprefix("--config.")
        if argument.startswith("--config.") and key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            return f"--config has no key {key!r}{hint}"
    return ""


def _shortened(record: logging.LogRecord) -> bool:
    """Cuts a line of a library to one: orbax logs an error with every thread's trace.

    The error itself arrives as an exception.
    """
    record.msg = record.getMessage().partition("\n")[0][:300]
    record.args = record.exc_info = record.exc_text = None
    return True


def _show_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Leaves the trace of a Ctrl-C out; the process still ends by that signal."""
    if issubclass(kind, KeyboardInterrupt) and not absl_logging.vlog_is_on(1):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def entry() -> None:
    """The installed command `robustscanner`."""
    # A file may have a name that is no UTF-8: it is printed as it is.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")
    # --help begins with what the program does: a script that pip made does not say it.
    sys.modules["__main__"].__doc__ = __doc__
    # It lists what belongs to the program that runs, under its name.
    for flag in absl_flags.FLAGS.get_key_flags_for_module(flags.__name__):
        absl_flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    # The libraries' own chatter only from warnings on; ours from information on.
    absl_logging.set_verbosity(absl_logging.WARNING)
    absl_logging.get_absl_logger().addFilter(_shortened)
    logs.show()
    sys.excepthook = _show_error
    app.run(main, flags_parser=_parse)


if __name__ == "__main__":
    entry()
