"""A full disk is told from a broken one, and from a folder that may not be written."""

import errno
import sqlite3
from collections import namedtuple
from pathlib import Path

import pytest

from fleet_host import disk_room
from fleet_host.disk_room import full_disk_words, is_disk_full

Usage = namedtuple("Usage", "total used free")


def sqlite_error(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorname = name
    return error


@pytest.fixture
def free(monkeypatch):
    """Sets how many bytes the disk has left."""

    def set_free(number: int) -> None:
        monkeypatch.setattr(disk_room.shutil, "disk_usage", lambda _folder: Usage(2**20, 2**20 - number, number))

    return set_free


@pytest.mark.parametrize(
    ("error", "left", "is_full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 10**9, True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 10**9, True),
        (OSError(errno.EACCES, "Permission denied"), 0, False),
        (sqlite_error("SQLITE_FULL"), 10**9, True),
        (sqlite_error("SQLITE_IOERR_SHMSIZE"), 4096, True),
        (sqlite_error("SQLITE_IOERR_WRITE"), 10**9, False),
        (sqlite_error("SQLITE_CANTOPEN"), 0, True),
        (sqlite_error("SQLITE_CORRUPT"), 0, False),
        (ValueError("no"), 0, False),
    ],
)
def test_full_disk_is_told_from_what_else_keeps_a_file_from_being_written(tmp_path, free, error, left, is_full):
    free(left)
    assert is_disk_full(error, tmp_path / "not" / "there" / "agent.db") is is_full


def test_words_say_how_much_is_free_and_where_and_what_to_do(tmp_path: Path, free):
    free(12 * 1024)
    words = full_disk_words(tmp_path / "agent.db")
    assert f"the disk is full: 12 KiB of 1024 KiB are free at {tmp_path}" in words
    assert f"du -xh {tmp_path}" in words


def test_file_system_that_does_not_tell_its_size_is_not_full():
    assert not is_disk_full(sqlite_error("SQLITE_CANTOPEN"), Path("/proc/self"))
