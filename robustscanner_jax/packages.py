"""Packages that are imported when they are asked for, and may be missing."""

import importlib
from types import ModuleType


def optional(name: str, purpose: str) -> ModuleType:
    """Imports an optional package.

    Args:
      name: of the module, such as "tensorflow_datasets".
      purpose: what it is for, the beginning of the message: "reading an LMDB".

    Raises:
      ValueError: it is not installed; the message says how to get it.
      ModuleNotFoundError: it is installed, and lacks a package itself.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if error.name != package:
            raise
        package = package.replace("_", "-")
        raise ValueError(
            f"{purpose} needs the package {package}: pip install {package}"
        ) from None
