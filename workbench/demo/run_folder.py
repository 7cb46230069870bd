"""The folder of a demo: emptied of what the last demo left, and claimed by one demo at a time."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet_protocol.errors import ConfigurationError

MARKER = ".edgeflock-demo"
"""Marks a folder as a demo's, which the next demo may empty; locked while a demo runs."""


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """An empty folder for this demo alone; an earlier demo's files in it are deleted, any others are not.

    Raises:
        ConfigurationError: a demo runs in it, it contains something else, or it can't be made.
    """
    try:
        marker = folder / MARKER
        folder.mkdir(parents=True, exist_ok=True)
        if not marker.exists() and any(folder.iterdir()):
            raise ConfigurationError(f"--out {folder}: it contains files that no demo made; name a new folder")
        lock = marker.open("a")
    except OSError as error:
        raise ConfigurationError(f"--out {folder}: {error.strerror}; name a folder that can be written") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _empty(folder)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"--out {folder}: a demo is running there; wait for its end, or name another folder"
            ) from error
        except OSError as error:
            raise ConfigurationError(f"--out {folder}: {error.strerror}; name a folder that can be written") from error
        yield


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != MARKER:
            path.unlink()
