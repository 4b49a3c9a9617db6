"""Checkpoint files of other frameworks: arrays out of them, never code into us.

Both formats are pickles, and unpickling a file runs whatever it says. `.pth` files are
read by torch with `weights_only=True`; `.pdparams` files by an unpickler that knows
numpy arrays and plain containers and refuses the rest.
"""

import collections
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from robustscanner_jax.packages import optional
from robustscanner_jax.reference.convert import CheckpointError

# Paddle's table from our names to its internal ones.
PADDLE_NAMES = "StructuredToParameterName@@"
# A data-parallel wrapper's prefix; MMEngine's and torch's.
WRAPPER = "module."


class Checkpoint(NamedTuple):
    """The arrays of a checkpoint by name, and what was left out or renamed."""

    state: dict[str, np.ndarray]
    notes: tuple[str, ...]


def _encode(text: str, encoding: str) -> bytes:
    """How pickle protocol 2 writes bytes; only in the encoding that it uses."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in encoding {encoding!r}")
    return text.encode("latin1")


def _dtype(code: str, align: Any = False, copy: Any = False) -> np.dtype:
    # Old files say 0 for False, which numpy warns about.
    dtype = np.dtype(code)
    if dtype.kind not in "fiub":
        raise pickle.UnpicklingError(f"arrays of {dtype}")
    return dtype


def _reconstruct(kind: type, shape: Any, code: Any) -> np.ndarray:
    if kind is not np.ndarray:
        raise pickle.UnpicklingError(f"arrays of type {kind}")
    return np.ndarray((0,), np.int8)  # its contents follow


def _frombuffer(buffer: Any, dtype: np.dtype, shape: Any, order: Any) -> np.ndarray:
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("builtins", "tuple"): tuple,  # a Paddle tensor: (internal name, array)
    ("__builtin__", "tuple"): tuple,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it wants {module}.{name}, which no file of arrays needs; nothing in "
                "it was executed"
            ) from None


def _read_pickle(path: Path) -> Checkpoint:
    with path.open("rb") as file:
        content = _ArrayUnpickler(file, encoding="latin1").load()
    if not isinstance(content, Mapping):
        raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, no arrays")
    state = {}
    for name, value in content.items():
        if name == PADDLE_NAMES:
            continue
        if isinstance(value, tuple) and len(value) == 2:
            value = value[1]  # (internal name, array)
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            kind = type(value).__name__
            raise pickle.UnpicklingError(f"{name} is a {kind}, not an array")
        state[name] = value
    return Checkpoint(state, ())


def _to_numpy(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    # numpy has no bfloat16; float32 holds all its values.
    if str(tensor.dtype) == "torch.bfloat16":
        tensor = tensor.float()
    return tensor.numpy()


def _read_torch(path: Path) -> Checkpoint:
    try:
        torch = optional("torch", "reading a .pth file")
    except (ValueError, ImportError) as error:  # missing, or broken
        raise CheckpointError(f"checkpoint {path}: {error}") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own text goes on for a page, and advises to trust the file.
        if wanted := re.search(r"GLOBAL (\S+)", str(error)):
            raise pickle.UnpicklingError(
                f"it wants {wanted[1]}, which is no tensor; nothing in it was "
                "executed. Save its 'state_dict' alone, where it was made"
            ) from error
        raise
    if not isinstance(content, Mapping):
        raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, no tensors")
    notes = []
    if isinstance(content.get("state_dict"), Mapping):
        if left := sorted(str(key) for key in content if key != "state_dict"):
            notes.append(f"left out of the checkpoint: {', '.join(left)}")
        content = content["state_dict"]
    names = list(content)
    if names and all(name.startswith(WRAPPER) for name in names):
        notes.append(f"prefix {WRAPPER} removed")
        content = {name[len(WRAPPER) :]: content[name] for name in names}
    # MMCV's EMA hook keeps the averages beside the parameters, as ema_<name>.
    averages = [name for name in content if name.startswith("ema_")]
    if averages:
        notes.append(f"left out: {len(averages)} moving averages (ema_*)")
    state = {}
    for name, value in content.items():
        if name in averages:
            continue
        if not isinstance(value, torch.Tensor):
            kind = type(value).__name__
            raise pickle.UnpicklingError(f"{name} is a {kind}, not a tensor")
        state[name] = _to_numpy(value)
    return Checkpoint(state, tuple(notes))


def _read_npz(path: Path) -> Checkpoint:
    # Opened here: numpy leaves a damaged file open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return Checkpoint({name: arrays[name] for name in arrays.files}, ())


_READERS = {
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".pdparams": _read_pickle,
    ".npz": _read_npz,
}


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads the arrays of a checkpoint file, and says what it left out.

    Args:
      path: a `.pth` file of MMOCR (needs PyTorch), a `.pdparams` file of PaddleOCR, or
        an `.npz` file of arrays by parameter name.

    Raises:
      CheckpointError: the file is damaged, of another kind, or holds something that is
        no array; the message names it. Nothing in the file is ever executed.
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise CheckpointError(
            f"checkpoint {path}: expected a file ending in {', '.join(_READERS)}"
        )
    try:
        if path.stat().st_size == 0:
            raise CheckpointError(f"checkpoint {path}: the file is empty")
        checkpoint = _READERS[path.suffix](path)
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path}: no such file") from error
    except EOFError as error:
        raise CheckpointError(f"checkpoint {path}: the file is cut short") from error
    except pickle.UnpicklingError as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"checkpoint {path}: cannot be read: {reason}") from error
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"checkpoint {path}: damaged ({error})") from error
    # Damaged pickles fail anywhere: a wrong opcode, a wrong length, a wrong type.
    except Exception as error:
        reason = re.split(r"\n|\. ", str(error))[0] or type(error).__name__
        raise CheckpointError(
            f"checkpoint {path}: damaged or cut short ({reason})"
        ) from error
    if not checkpoint.state:
        raise CheckpointError(f"checkpoint {path}: it holds no arrays")
    return checkpoint


def load_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a checkpoint file by name; see `read_checkpoint`."""
    return read_checkpoint(path).state
