"""A folder that appears whole, in place of an older one, or not at all."""

import contextlib
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def staged(output: Path, *, replaceable: Callable[[Path], bool]) -> Iterator[Path]:
    """Yields an empty folder that becomes `output` if the block does not raise.

    Where `output` is a mount point, which cannot be renamed, its files are replaced one
    by one at the end; everywhere else the folder changes at once, and the older one
    is put back if that fails.

    Args:
      output: where the folder goes; what a link points to is replaced, not the link.
      replaceable: whether a folder that is not empty may be replaced.

    Raises:
      ValueError: `output` is a file, or not empty and not replaceable.
      OSError: a folder cannot be made there.
    """
    folder = _make_empty(output, replaceable)
    output = output.resolve()
    mounted = output.is_mount()
    try:
        yield folder
        if mounted:
            _replace_contents(output, folder)
        else:
            _replace(output, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check(output: Path, *, replaceable: Callable[[Path], bool]) -> None:
    """Raises what `staged` would at its begin; makes the folders above `output`."""
    _make_empty(output, replaceable).rmdir()


def _make_empty(output: Path, replaceable: Callable[[Path], bool]) -> Path:
    """Returns a new folder that can become `output`, or inside it if it is a mount."""
    asked, output = output, output.resolve()
    for path in (output, output.parent):
        if path.exists() and not path.is_dir():
            raise ValueError(f"{path}: a file is in the way of the folder {asked}")
    if output.is_dir() and any(output.iterdir()) and not replaceable(output):
        raise ValueError(
            f"{asked}: not empty, and not an older export; nothing was changed"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: processes in containers share their ids.
    name = f".{uuid.uuid4().hex}.tmp"
    folder = (output if output.is_mount() else output.parent) / name
    folder.mkdir()
    return folder


def _replace(output: Path, folder: Path) -> None:
    retired = folder.with_suffix(".old")
    if output.exists():
        output.rename(retired)
    try:
        folder.rename(output)
    except BaseException:
        if retired.exists():
            retired.rename(output)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _replace_contents(output: Path, folder: Path) -> None:
    for path in output.iterdir():
        if path == folder:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for path in folder.iterdir():
        path.rename(output / path.name)
