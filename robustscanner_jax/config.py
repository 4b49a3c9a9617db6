"""From the config to plain arguments: the checks that span fields, and JSON."""

import json
from pathlib import Path
from typing import Any, get_args

from ml_collections import ConfigDict

from robustscanner_jax.charset import DICT90, Charset
from robustscanner_jax.data.augment import DISTORTION_NAMES
from robustscanner_jax.metrics import PROTOCOLS
from robustscanner_jax.models.attention import MaskRounding
from robustscanner_jax.models.robustscanner import CHANNEL_SCALE, RobustScanner
from robustscanner_jax.optim import SCHEDULES
from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.whole_file import write_whole

# A ConfigDict. Its fields are known to configs/default.py, not to a type checker.
Config = Any

COMPUTE_DTYPES = ("auto", "float32", "bfloat16")


def validate(config: Config) -> None:
    """Raises `ValueError` for values that cannot work, before any device work."""

    def expect(holds: bool, key: str, wanted: str, got: object) -> None:
        if not holds:
            raise ValueError(f"config.{key}: expected {wanted}, got {got!r}")

    model, data, train = config.model, config.data, config.train
    expect(model.width in CHANNEL_SCALE, "model.width", f"one of {list(CHANNEL_SCALE)}",
           model.width)  # fmt: skip
    expect(model.dtype in COMPUTE_DTYPES, "model.dtype", f"one of {COMPUTE_DTYPES}",
           model.dtype)  # fmt: skip
    expect(model.max_len >= 2, "model.max_len", "at least 2 steps", model.max_len)
    expect(model.decoder_width > 0, "model.decoder_width", "at least 1",
           model.decoder_width)  # fmt: skip
    roundings = get_args(MaskRounding)
    expect(model.mask_rounding in roundings, "model.mask_rounding",
           f"one of {roundings}", model.mask_rounding)  # fmt: skip
    expect(train.schedule in SCHEDULES, "train.schedule", f"one of {SCHEDULES}",
           train.schedule)  # fmt: skip
    expect(train.steps > 0, "train.steps", "at least 1", train.steps)
    expect(0 <= train.warmup_steps < train.steps, "train.warmup_steps",
           f"0 to {train.steps - 1}", train.warmup_steps)  # fmt: skip
    expect(train.peak_lr > 0, "train.peak_lr", "a positive rate", train.peak_lr)
    expect(train.clip_norm >= 0, "train.clip_norm", "a norm, or 0 for none",
           train.clip_norm)  # fmt: skip
    expect(train.weight_decay >= 0, "train.weight_decay", "0 or more",
           train.weight_decay)  # fmt: skip
    expect(0 <= train.ema_decay < 1, "train.ema_decay", "0 to below 1", train.ema_decay)
    expect(data.batch_size > 0, "data.batch_size", "at least 1", data.batch_size)
    expect(data.variants > 0 and data.batch_size % data.variants == 0, "data.variants",
           f"a divisor of the batch size {data.batch_size}", data.variants)  # fmt: skip
    expect(data.variants == 1 or data.augment > 0, "data.variants",
           "1, as data.augment=0 makes them alike", data.variants)  # fmt: skip
    expect(0 <= data.augment <= 1, "data.augment", "0 to 1", data.augment)
    expect(data.num_workers >= -1, "data.num_workers", "a number, 0 for threads, or -1",
           data.num_workers)  # fmt: skip
    expect(set(data.augment_without) <= set(DISTORTION_NAMES), "data.augment_without",
           f"names among {DISTORTION_NAMES}", data.augment_without)  # fmt: skip
    expect(data.protocol in ("auto", *PROTOCOLS), "data.protocol",
           f"auto or one of {list(PROTOCOLS)}", data.protocol)  # fmt: skip
    expect(0 <= data.max_bad_share <= 1, "data.max_bad_share", "0 to 1",
           data.max_bad_share)  # fmt: skip
    expect(len(data.train) > 0, "data.train", "at least one source", data.train)
    expect(len(data.weights) == len(data.train), "data.weights",
           f"{len(data.train)} numbers, one a source", data.weights)  # fmt: skip
    for key in ("log_every", "evaluate_every", "save_every", "keep", "max_skipped"):
        expect(train[key] > 0, f"train.{key}", "at least 1", train[key])
    profile = tuple(train.profile)
    expect(len(profile) == 2 and all(isinstance(x, int) for x in profile)
           and (profile == (0, 0) or 1 <= profile[0] <= profile[1]), "train.profile",
           "(first, last) update from 1 on, or (0, 0)", train.profile)  # fmt: skip
    expect(train.stall_seconds >= 0, "train.stall_seconds", "0 or more",
           train.stall_seconds)  # fmt: skip
    make_charset(config)
    make_preprocessing(config)


def make_charset(config: Config) -> Charset:
    """Returns the charset of a text file, or the published one where none is named."""
    return Charset.from_file(config.charset) if config.charset else Charset.of(DICT90)


def make_preprocessing(config: Config) -> Preprocessing:
    """Returns the rule that scales, pads and normalises images."""
    return Preprocessing(**config.preprocessing)


def make_model(config: Config, charset: Charset) -> RobustScanner:
    """Returns the network for a charset, computing in float32."""
    options = config.model.to_dict()
    del options["dtype"]
    return RobustScanner(
        num_classes=charset.num_classes,
        num_tokens=charset.num_tokens,
        start_id=charset.end_id,
        end_id=charset.end_id,
        pad_id=charset.pad_id,
        **options,
    )


# What a run folder's weights and data position depend on.
FIXED_SECTIONS = ("seed", "charset", "model", "preprocessing", "data")
# Free to change between the pieces of a run: they move neither weights nor order.
FREE_KEYS = (
    "charset",  # a path; `run_folder` compares the characters
    "model.dtype",
    "data.evaluate",
    "data.protocol",
    "data.num_workers",
    "data.store_rendered",
    "data.max_bad_share",
)


def differences(before: Config, now: Config) -> list[str]:
    """Returns which keys differ that a run must keep, each with both values.

    A key that an older config lacks came later: empty, it is what was done before.
    """
    old, new = (_flat(json.loads(c.to_json_best_effort())) for c in (before, now))
    return [
        f"{key} was {old.get(key)!r}, now {new.get(key)!r}"
        for key in sorted(set(old) | set(new))
        if key.split(".")[0] in FIXED_SECTIONS
        and key not in FREE_KEYS
        and old.get(key) != new.get(key)
        and (key in old or new[key])
    ]


def keys(config: Config) -> list[str]:
    """Returns every key with its sections: `train.steps`."""
    return list(_flat(json.loads(config.to_json_best_effort())))


def _flat(tree: dict, prefix: str = "") -> dict[str, object]:
    leaves: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            leaves |= _flat(value, f"{prefix}{key}.")
        else:
            leaves[prefix + key] = value
    return leaves


def to_json(config: Config, path: Path) -> None:
    """Writes the resolved config, whole or not at all."""
    write_whole(path, config.to_json_best_effort(indent=2) + "\n")


def from_json(path: Path) -> Config:
    """Reads what `to_json` wrote."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{path}: not found, so {path.parent} is no run folder; "
            "train first, or give --weights a weights file"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None
    known = values if isinstance(values, dict) else {}
    missing = [name for name in FIXED_SECTIONS if name not in known]
    if missing:
        raise ValueError(f"{path}: no config of a run, it lacks {', '.join(missing)}")
    return ConfigDict(values)
