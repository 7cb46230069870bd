"""Files, and new content of files, that are there whole or not at all, also on a full disk and after a power cut."""

import errno
import os
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def write_new_file(path: Path, content: bytes, mode: int = 0o666, owner: os.stat_result | None = None) -> None:
    """Write a file that must not exist yet; `mode` is narrowed by the umask. It is given to the `owner` of another.

    Raises:
        OSError: it exists, or can't be written; then it does not exist either.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        try:
            if owner is not None:
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            path.unlink()
            error.filename = str(path)  # which the system names only where a file can't be opened
            raise


def replace_file(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Put a file with `content` in the place of `path`, where there may be one; root leaves it to its owner.

    Raises:
        OSError: it can't be written; then what was there stays.
    """
    unfinished = path.with_name(path.name + ".part")
    unfinished.unlink(missing_ok=True)
    write_new_file(unfinished, content, mode, path.stat() if os.geteuid() == 0 and path.exists() else None)
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the name, too, outlasts a power cut
    finally:
        os.close(folder)


def remedy_for(error: OSError, otherwise: str) -> str:
    """What to do about a file that could not be written."""
    return "make room on that disk" if error.errno in FULL else otherwise
