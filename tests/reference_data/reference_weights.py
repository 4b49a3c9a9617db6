"""Deterministic, framework-independent parameter recipe (numpy only).

make(name, shape, salt="") -> np.float32 array, a pure function of its arguments.

The random source is integer-only, so the result is bit-identical on every
platform and numpy version: Philox4x64 raw 64-bit words keyed with
sha256(salt + "|" + name)[:16]; element i of the tensor (C order) uses word i.
 * "gauss": sum of the word's four 16-bit fields, centred, divided by its
   standard deviation (Irwin-Hall, mean 0, variance 1, |x| < 3.47).
 * "unif":  (word >> 11) * 2**-53 in [0, 1).
Matrix/conv weights are additionally centred over their fan-in (exact integer
sums), which keeps a deep random ReLU net from collapsing to one constant feature.

Names are the state_dict names of the MMOCR (PyTorch) or PaddleOCR (Paddle)
reference; shapes are the reference's own layouts (see the manifests).
"""

import hashlib
import math
import re

import numpy as np

_GAUSS_STD = math.sqrt(4 * (65536.0**2 - 1) / 12.0)


def _words(name, n, salt):
    digest = hashlib.sha256((salt + "|" + name).encode("utf-8")).digest()
    key = int.from_bytes(digest[:16], "little")
    return np.random.Philox(key=key).random_raw(n).astype(np.uint64)


def _fields(name, n, salt):
    w = _words(name, n, salt)
    m = np.uint64(0xFFFF)
    s = (
        (w & m)
        + ((w >> np.uint64(16)) & m)
        + ((w >> np.uint64(32)) & m)
        + (w >> np.uint64(48))
    )
    return s.astype(np.int64)


def gauss(name, shape, salt=""):
    """float64, mean 0, variance 1."""
    n = int(np.prod(shape, dtype=np.int64))
    return ((_fields(name, n, salt) - 131070) / _GAUSS_STD).reshape(shape)


def centred(name, shape, axes, salt=""):
    """gauss minus its exact mean over `axes`."""
    n = int(np.prod(shape, dtype=np.int64))
    s = _fields(name, n, salt).reshape(shape)
    count = int(np.prod([shape[a] for a in axes]))
    mean = s.sum(axis=tuple(axes), keepdims=True) / count
    return (s - mean) / _GAUSS_STD


def unif(name, shape, lo, hi, salt=""):
    n = int(np.prod(shape, dtype=np.int64))
    u = (_words(name, n, salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (lo + (hi - lo) * u).reshape(shape)


# gains (standard deviation * sqrt(fan_in)); first matching pattern wins
GAINS = [
    (r"encoder\.layer\.weight$", 3.0),
    (r"mixer\.0\.weight$", 3.0),
    (r"mixer\.2\.weight$", 3.0),
    (r"linear_layer\.weight$", 2.0),
    (r"prediction\.weight$", 8.0),
    (r"backbone\.block\d\.\d\.conv2\.weight$", 0.8),
    (r"backbone\..*weight$", 1.35),
]
EOS_BIAS = 6.0


def make(name, shape, salt=""):
    shape = tuple(int(d) for d in shape)
    # Paddle lists every LSTM tensor twice: "rnn.weight_ih_l0" and its alias
    # "rnn.0.cell.weight_ih"
    name = re.sub(r"\.(\d+)\.cell\.((?:weight|bias)_[ih]h)$", r".\2_l\1", name)
    paddle_style = name.startswith("head.") or name.endswith(("._mean", "._variance"))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.float32)
    if name.endswith(("running_mean", "._mean")):
        x = 0.1 * gauss(name, shape, salt)
    elif name.endswith(("running_var", "._variance")):
        x = unif(name, shape, 0.5, 1.5, salt)
    elif name.endswith("embedding.weight"):
        x = gauss(name, shape, salt)
        if "hybrid_decoder" in name:  # padding row is zero in every real checkpoint
            x[92 if paddle_style else 91] = 0.0
        if "position_decoder" in name:
            x = 0.5 * x
    elif re.search(r"weight_[ih]h(_l\d+)?$", name):  # LSTM, (4H, I) in both frameworks
        x = 2.0 / math.sqrt(shape[1]) * gauss(name, shape, salt)
    elif re.search(r"bias_[ih]h(_l\d+)?$", name):
        x = 0.2 * gauss(name, shape, salt)
    elif name.startswith("backbone.") and len(shape) == 1 and name.endswith("weight"):
        # BN scale
        x = unif(name, shape, 0.5, 1.5, salt)
    elif name.endswith("weight"):
        gain = next(g for p, g in GAINS if re.search(p, name))
        if len(shape) == 4:  # conv, OIHW in both frameworks
            axes = (1, 2, 3)
        elif paddle_style:  # paddle Linear is (in, out)
            axes = (0,)
        else:  # torch Linear is (out, in)
            axes = (1,)
        fan_in = int(np.prod([shape[a] for a in axes]))
        x = gain / math.sqrt(fan_in) * centred(name, shape, axes, salt)
    elif name.endswith("bias"):
        x = 0.2 * gauss(name, shape, salt)
        if name.endswith("prediction.bias"):
            x[91 if paddle_style else 90] += EOS_BIAS
    else:
        raise KeyError(name)
    return np.ascontiguousarray(x, dtype=np.float32)
