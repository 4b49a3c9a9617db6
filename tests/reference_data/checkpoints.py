"""Checkpoints made from the recipe, in the names and layouts of each source."""

import functools
import json
import re
from pathlib import Path

import numpy as np
from reference_data import reference_weights

FOLDER = Path(__file__).parent
# Backbone channels of the published network -> of `width="nano"`.
NANO = {64: 8, 128: 16, 256: 32, 512: 64}


def manifest(source):
    """Returns the shapes of a source's tensors by name."""
    content = json.loads((FOLDER / f"{source}_manifest.json").read_text())
    return {name: tuple(entry["shape"]) for name, entry in content.items()}


def _nano_shape(name, shape):
    """Shrinks what the backbone's channels decide; the decoder keeps its 128."""
    if name.startswith("backbone."):
        return tuple(NANO.get(size, size) for size in shape)
    if name.endswith("encoder.layer.weight"):
        return (shape[0], 64, 1, 1)
    if "linear_layer" in name:
        return tuple(128 for _ in shape)
    if name.endswith("prediction.weight"):
        return tuple(NANO.get(size, size) for size in shape)
    return shape


@functools.lru_cache(maxsize=6)
def _state(source, salt, nano):
    state = {}
    for name, shape in manifest(source).items():
        shape = _nano_shape(name, shape) if nano else shape
        state[name] = reference_weights.make(name, shape, salt)
        if name.endswith("num_batches_tracked"):
            state[name] = np.zeros((), np.int64)
        state[name].flags.writeable = False
    return state


def state(source, salt, *, nano=False):
    """Returns a checkpoint of `mmocr`, `mmocr0` or `paddle`; a fresh dict."""
    if source == "mmocr0":
        return mmocr0_from_paddle(_state("paddle", salt, nano))
    return dict(_state(source, salt, nano))


def mmocr0_from_paddle(paddle):
    """Renames and transposes by hand: the rules, written a second time."""
    out = {}
    for name, array in paddle.items():
        if re.search(r"\.\d\.cell\.", name):
            continue
        new = name.removeprefix("head.")
        new = new.replace("._mean", ".running_mean")
        new = new.replace("._variance", ".running_var")
        if name.endswith(("linear_layer.weight", "prediction.weight")):
            array = array.T
        out[new] = array
        if name.endswith("._mean"):
            counter = new.replace("running_mean", "num_batches_tracked")
            out[counter] = np.zeros((), np.int64)
    return out


def paddle_from_mmocr(mmocr):
    """Moves a 1.x checkpoint to Paddle's names, layouts and token ids.

    1.x: end 90, pad 91, unknown 92, all classes. Paddle: unknown 90, end 91, pad 92,
    the last no class.
    """
    out = {}
    for name, array in mmocr.items():
        if name.endswith("num_batches_tracked"):
            continue
        new = name.replace("running_mean", "_mean").replace("running_var", "_variance")
        new = new.replace("decoder.linear_layer", "decoder.fusion_module.linear_layer")
        if not new.startswith("backbone."):
            new = f"head.{new}"
        if "hybrid_decoder.embedding" in name:
            array = array[[*range(90), 92, 90, 91]]
        if "prediction" in name:
            array = array[[*range(90), 92, 90]]
        if name.endswith(("linear_layer.weight", "prediction.weight")):
            array = array.T
        out[new] = array
        found = re.search(r"\.((?:weight|bias)_[ih]h)_l(\d)$", new)
        if found:
            out[f"{new[: found.start()]}.{found[2]}.cell.{found[1]}"] = array
    return out
