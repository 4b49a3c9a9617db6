"""Digests of an input, which tell that it was changed since it was converted.

Of label files every byte counts. An LMDB and shards hold the images as well, too many
bytes to be read for this: their sizes and times count.
"""

import hashlib
import json
import os
from collections.abc import Iterable

from robustscanner_jax.checksum import file_sha256


def of_file(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    return file_sha256(path)


def of_files(
    paths: Iterable[str | os.PathLike[str]], root: str | os.PathLike[str]
) -> str:
    """Returns a digest of the names below `root` and the bytes of some files."""
    return of_names(f"{os.path.relpath(path, root)} {of_file(path)}" for path in paths)


def of_states(paths: Iterable[str | os.PathLike[str]]) -> str:
    """Returns a digest of the names, sizes and times of the last change."""
    states = ((os.path.basename(path), os.stat(path)) for path in paths)
    return of_names(f"{name} {s.st_size} {s.st_mtime_ns}" for name, s in states)


def of_names(names: Iterable[str]) -> str:
    """Returns a digest of names in their order."""
    # As JSON: a name may hold any separator, and lone surrogates.
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()
