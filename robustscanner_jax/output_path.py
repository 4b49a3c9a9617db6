"""Where --output goes, tried before the work: what is in its way must not cost that."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from robustscanner_jax import artefact, staging
from robustscanner_jax.export import triton


def make_folder(output: str) -> Path:
    """Returns the folder for results, made if need be.

    Raises:
      ValueError: it is a file, or no folder that can be written to.
    """
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output={output}: expected a folder, this is a file")
    _try_to_write(folder, output, "a folder that can be written to")
    return folder


def check_file(output: str) -> Path:
    """Returns the path of a file to write; the folder around it is made.

    Raises:
      ValueError: it is a folder, or no file can be written there.
    """
    path = Path(output)
    if path.is_dir():
        raise ValueError(f"--output={output}: expected a file to write, got a folder")
    _try_to_write(path.parent, output, "a file in a folder that can be written to")
    return path


def check_export(output: str) -> None:
    """Raises `ValueError` where `export.run.export_artefact` cannot write."""
    _check_staged(Path(output), output, artefact.is_artefact)


def check_repository(output: str) -> None:
    """Raises `ValueError` where `export.triton.export_triton` cannot write."""
    model = Path(output, triton.MODEL_NAME)
    _check_staged(model, output, triton.is_exported_model)


def _try_to_write(folder: Path, output: str, expected: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Permissions tell little: of root, of a read-only mount, of /proc.
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"--output={output}: expected {expected}, "
            f"{folder} cannot be ({error.strerror})"
        ) from error


def _check_staged(
    folder: Path, output: str, replaceable: Callable[[Path], bool]
) -> None:
    try:
        staging.check(folder, replaceable=replaceable)
    except ValueError as error:
        raise ValueError(f"--output: {error}") from error
    except OSError as error:
        raise ValueError(
            f"--output={output}: expected a folder that can be made or replaced "
            f"({error.strerror})"
        ) from error
