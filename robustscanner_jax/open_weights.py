"""Weights from wherever they are: a file, a run folder, or what ships."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from robustscanner_jax import config as config_lib
from robustscanner_jax import run_folder
from robustscanner_jax.allowlist import restrict
from robustscanner_jax.artefact import MANIFEST_FILE
from robustscanner_jax.checkpoint_reading import restore_variables
from robustscanner_jax.weights import Weights, expected_shapes, load_weights, unflatten

# What ships, by name; the first is what reads where nothing is named.
SHIPPED = ("small", "tiny")
# Beside the package in a clone, inside it in an installed wheel.
SHIPPED_FOLDERS = (
    Path(__file__).parent.parent / "weights",
    Path(__file__).parent / "shipped",
)


def open_weights(
    path: str | Path | None = None, allowlist: str | None = None
) -> Weights:
    """Reads a weights file, the newest checkpoint of a run folder, or what ships.

    Args:
      path: file or folder, or a name of `SHIPPED`; None is the first of these.
      allowlist: characters that may be read, see `allowlist.restrict`; None allows all.

    Raises:
      ValueError: what `path` names is none of them; of an export it says so. Or the
        weights do not read a character of `allowlist`.
    """
    if path is None:
        path = _shipped(SHIPPED[0])
    elif str(path) in SHIPPED and not Path(path).exists():
        path = _shipped(str(path))
    path = Path(path)
    expected = f"expected a weights file, a run folder, or one of {', '.join(SHIPPED)}"
    if not path.exists():
        raise ValueError(f"{path}: not found; {expected}")
    if path.is_dir() and not (path / "config.json").is_file():
        if is_export(path):
            raise ValueError(f"{path}: this is an export: use load_artefact")
        raise ValueError(f"{path}: no run folder, it has no config.json; {expected}")
    weights = load_run(path) if path.is_dir() else load_weights(path)
    return weights if allowlist is None else restrict(weights, allowlist)


def is_export(path: str | Path) -> bool:
    """Returns whether this is the folder of an export, whole or not."""
    return (Path(path) / MANIFEST_FILE).is_file()


def _shipped(name: str) -> Path:
    files = [folder / f"{name}.safetensors" for folder in SHIPPED_FOLDERS]
    found = [file for file in files if file.is_file()]
    if not found:
        raise ValueError(
            f"{files[0]}: not found, this installation has no weights; "
            "name a weights file or a run folder"
        )
    return found[0]


def load_run(workdir: Path) -> Weights:
    """Returns the newest checkpoint of a run folder as weights.

    Raises:
      ValueError: no run folder, or no complete checkpoint in it.
    """
    config = run_folder.read_config(workdir)
    charset = config_lib.make_charset(config)
    model = config_lib.make_model(config, charset)
    shapes = {
        path: jax.ShapeDtypeStruct(shape, jnp.float32)
        for path, shape in expected_shapes(model).items()
    }
    variables, step = restore_variables(
        workdir,
        unflatten(shapes),
        sharding=jax.sharding.SingleDeviceSharding(jax.local_devices()[0]),
    )
    return Weights(
        model,
        jax.tree.map(np.asarray, variables),
        charset,
        config_lib.make_preprocessing(config),
        make_card(config, workdir, step),
    )


def make_card(config: config_lib.Config, workdir: Path, step: int) -> dict[str, Any]:
    """Returns what a weights file should say about the run that made it."""
    return {
        "step": step,
        "seed": config.seed,
        "batch_size": config.data.batch_size,
        "train": list(config.data.train),
        "train_shares": list(config.data.weights),
        "augment": config.data.augment,
        "variants": config.data.variants,
        "schedule": config.train.schedule,
        "peak_lr": config.train.peak_lr,
        "init_weights": Path(config.train.init_weights).name,
        "accuracy_36": _accuracy(
            workdir / "accuracy.json", step, complete=step == config.train.steps
        ),
    }


def _accuracy(path: Path, step: int, *, complete: bool) -> dict[str, list[float]]:
    """Returns accuracy and words by set; empty where the table tells of other weights.

    Those of another file or step, or of this one read otherwise. A table that does not
    say its step or weights (of before 2026-11-23) is that of the run's end.
    """
    table = json.loads(path.read_text()) if path.is_file() else {}
    extra = table.get("extra", {})
    own = extra.get("weights", ".") == "." and not any(
        extra.get(key) for key in ("rotate_tall", "look_closer", "allowlist")
    )
    of_step = extra.get("step", step if complete else None)
    if not own or (table.get("protocol"), of_step) != ("36", step):
        return {}
    return {s["name"]: [s["accuracy"], s["words"]] for s in table["sets"]}
