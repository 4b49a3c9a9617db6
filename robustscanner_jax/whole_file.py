"""A file that appears whole, in place of an older one, or not at all.

For whole folders there is `staging`, which has more to undo. Plain Python.
"""

import os
import uuid
from pathlib import Path


def write_whole_escaped(path: str | os.PathLike[str], text: str) -> None:
    r"""Writes text as `write_whole`; what UTF-8 cannot hold is escaped, as `\udc80`.

    File names and labels may hold such lone surrogates.
    """
    write_whole(path, text.encode("utf-8", "backslashreplace"))


def write_whole(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Writes a file that is complete on the disk before it has its name.

    The process may be killed at any moment, and the machine too: whoever opens `path`
    finds the older content or the new one. Its permissions are those of any new file.

    Args:
      path: of the file, in a folder that exists; an older file is replaced.
      data: its content; text is written as UTF-8, its line ends as they are.

    Raises:
      OSError: it could not be written; an older file is as it was, and nothing else is
        left beside it.
      UnicodeEncodeError: text that UTF-8 cannot hold; nothing was touched.
    """
    path = Path(path)
    content = data.encode("utf-8") if isinstance(data, str) else data
    # In the same folder, or it could not be renamed. A name of its own, and not that of
    # the process: those in containers share their ids. Not `tempfile`, whose files no
    # one else may read; a mounted bucket has no permissions that could be mended.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
