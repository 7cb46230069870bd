"""A lock between processes of one machine."""

import fcntl
import os
from pathlib import Path

from fleet_host.owned_files import make_owned_file
from fleet_protocol.errors import ConfigurationError


class FileLock:
    """flock(2) of a file, which belongs to the open file: the kernel takes it back when the process ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def take(self) -> bool:
        """Take it, at once or not at all: False where another process has it.

        Raises:
            ConfigurationError: the file can't be written.
        """
        self._close()
        try:
            make_owned_file(self._path)  # root's command may be the first to take it
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close()
        except OSError as error:
            self._close()
            words = "see that its folder is there, and that this user may write to it"
            raise ConfigurationError(f"lock {self._path}: {error.strerror}; {words}") from error
        # Its holder deletes it before letting go: what is locked may have no name any more.
        return self.is_held()

    def is_held(self) -> bool:
        """Whether it was taken, and its file is still the one of that name."""
        if self._descriptor is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give it back, and take its file away."""
        if self.is_held():
            self._path.unlink()
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None
