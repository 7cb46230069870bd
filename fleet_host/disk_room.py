"""Full disks: how one is recognised behind an error of the system or of SQLite, and what is said."""

import errno
import os
import shutil
import sys
from pathlib import Path

NEEDED_BYTES = 256 * 1024
"""What a program writes before it runs: SQLite's write-ahead log and its index. With less free, a disk counts as full
where SQLite says no more than that a file could not be written."""

SAID_ON_A_FULL_DISK = ("SQLITE_IOERR", "SQLITE_CANTOPEN")
"""SQLite's names, at their beginning, for what may be a full disk or a broken one."""


def is_disk_full(error: BaseException, path: Path) -> bool:
    """Whether the disk that `path` is on is full, and that is why `error` came."""
    if isinstance(error, OSError):
        return error.errno in {errno.ENOSPC, errno.EDQUOT}
    name = getattr(error, "sqlite_errorname", "")
    return name.startswith("SQLITE_FULL") or (name.startswith(SAID_ON_A_FULL_DISK) and free_bytes(path) < NEEDED_BYTES)


def free_bytes(path: Path) -> int:
    """What this user may still write beside a file, or into a folder, that need not exist; 0 without free inodes.

    No end of it where the file system does not tell its size, as /proc does not.
    """
    folder = _existing(path)
    status = os.statvfs(folder)
    if not status.f_blocks:
        return sys.maxsize
    return 0 if status.f_files and not status.f_favail else shutil.disk_usage(folder).free


def full_disk_words(path: Path) -> str:
    """That the disk is full, how much is free, and what to do."""
    folder = _existing(path)
    return (
        f"the disk is full: {free_bytes(path) // 1024} KiB of {shutil.disk_usage(folder).total // 1024} KiB are free at"
        f" {folder}; {NEEDED_BYTES // 1024} KiB are needed: delete what takes room there (du -xh {folder} | sort -h"
        " | tail; journalctl --vacuum-size=50M), or enlarge the disk; what is stored stays"
    )


def _existing(path: Path) -> Path:
    """The nearest folder above that is there."""
    return next((each for each in (path, *path.absolute().parents) if each.is_dir()), Path("/"))
