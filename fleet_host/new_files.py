"""New files, whole or not at all: a full disk leaves no half of a key behind, and no configuration that is cut off."""

import os
from pathlib import Path


def write_new_file(path: Path, content: bytes, mode: int) -> None:
    """Make a file, and return when its content is on the disk.

    Raises:
        FileExistsError: there is one, which stays as it is.
        OSError: it can't be written; nothing of it stays.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink()
        raise
