"""The folder of one training run: whose config it holds, and with which versions."""

import json
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path

from robustscanner_jax import config as config_lib
from robustscanner_jax.whole_file import write_whole

# The charset file may be edited, moved, or named relative to another folder.
CHARSET = "charset.txt"
RECORDED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def claim(workdir: Path, config: config_lib.Config, *, write: bool) -> None:
    """Checks the folder against the config, and writes what a reader of it needs.

    That is config.json, versions.json, and a copy of the charset file if there is one.

    Args:
      workdir: the run folder; made if it does not exist.
      config: of the run.
      write: whether this process writes; one of all does.

    Raises:
      ValueError: the folder holds checkpoints whose weights or order of examples
        another config made.
    """
    path = workdir / "config.json"
    if workdir.exists() and not workdir.is_dir():
        raise ValueError(f"{workdir}: expected a folder for the run, it is a file")
    if path.exists() and _has_checkpoint(workdir):
        changed = config_lib.differences(config_lib.from_json(path), config)
        changed += _changed_characters(workdir, config)
        if changed:
            raise ValueError(
                f"{workdir} holds a run of another config ({'; '.join(changed)}); "
                "use its config, or another --workdir"
            )
    if write:
        workdir.mkdir(parents=True, exist_ok=True)
        _try_rename(workdir)
        config_lib.to_json(config, path)
        if config.charset:
            characters = config_lib.make_charset(config).characters
            write_whole(workdir / CHARSET, "".join(f"{c}\n" for c in characters))
        else:
            (workdir / CHARSET).unlink(missing_ok=True)
        versions = {name: metadata.version(name) for name in RECORDED}
        versions["python"] = platform.python_version()
        write_whole(workdir / "versions.json", json.dumps(versions, indent=2) + "\n")


def _try_rename(workdir: Path) -> None:
    """Renames a folder, as a checkpoint is when all of it is there.

    Raises:
      ValueError: that cannot be done here, as in some mounted buckets.
    """
    folder = workdir / f".{os.getpid()}.probe"
    renamed = folder.with_suffix(".renamed")
    try:
        folder.mkdir()
        (folder / "file").touch()
        folder.rename(renamed)
    except OSError as error:
        raise ValueError(
            f"{workdir}: a folder in it cannot be renamed ({error.strerror}), and so "
            "checkpoints are published; mount a bucket with rename-dir-limit=200000, "
            "or make it with a hierarchical namespace"
        ) from error
    finally:
        for path in (folder, renamed):
            shutil.rmtree(path, ignore_errors=True)


def read_config(workdir: Path) -> config_lib.Config:
    """Returns the config of a run, its charset the copy that lies beside it.

    Raises:
      ValueError: this is no run folder.
    """
    config = config_lib.from_json(workdir / "config.json")
    if (workdir / CHARSET).is_file():
        config.charset = str(workdir / CHARSET)
    return config


def _changed_characters(workdir: Path, config: config_lib.Config) -> list[str]:
    now = config_lib.make_charset(config).characters
    before = config_lib.make_charset(read_config(workdir)).characters
    return [] if now == before else [f"charset was {before!r}, now {now!r}"]


def _has_checkpoint(workdir: Path) -> bool:
    """Returns whether a run saved anything; before that it may still change."""
    return any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*"))
