"""Weights and rows for the tests of export, inference and serving."""

import numpy as np
import pytest
from helpers import CHARSET, HEIGHT, WIDTH, eloquent, random_images, small_model

from robustscanner_jax import backends
from robustscanner_jax.preprocessing import Preprocessing
from robustscanner_jax.weights import Weights

RULE = Preprocessing(height=HEIGHT, min_width=8, max_width=WIDTH)
# Format and what reads it.
READERS = [
    ("stablehlo", "jax"),
    ("onnx", "onnxruntime"),
    ("onnx", "openvino"),
]


def needs(*packages: str) -> None:
    """Skips the test, or the whole file, where one of these packages is missing."""
    for package in packages:
        if not backends.is_installed(package):
            reason = f"needs {package}, which is optional"
            pytest.skip(reason, allow_module_level=True)


def some_weights(seed: int = 0, **changes) -> Weights:
    """Returns a small network that reads varied texts, with everything it needs."""
    card = {"data": "random", "seed": seed}
    return Weights(small_model(**changes), eloquent(seed), CHARSET, RULE, card)


def some_rows(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns pixels `[count, h, w, 3]` uint8 and content widths `[count]`."""
    image, width = random_images(seed, count)
    pixels = np.clip(np.round(np.asarray(image) * 127 + 127), 0, 255)
    return pixels.astype(np.uint8), np.asarray(width, np.int32)
