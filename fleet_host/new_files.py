"""New files that are there whole or not at all, also on a full disk and after a power cut."""

import errno
import os
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def write_new_file(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Write a file that must not exist yet; `mode` is narrowed by the umask.

    Raises:
        OSError: it exists, or can't be written; then it does not exist either.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            path.unlink()
            raise


def remedy_for(error: OSError, otherwise: str) -> str:
    """What to do about a file that could not be written."""
    return "make room on that disk" if error.errno in FULL else otherwise
