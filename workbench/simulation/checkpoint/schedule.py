"""When checkpoints are written, and by whom: every few minutes of real time, between two events, by one simulation."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet_host.file_lock import FileLock
from fleet_protocol.errors import ConfigurationError
from workbench.simulation.checkpoint.graph import NotWritableError

SECONDS_PER_MINUTE = 60.0


class Checkpoints:
    """Calls `write` so many `minutes` after the last checkpoint. One that fails is told, and the simulation goes on."""

    def __init__(self, minutes: float, write: Callable[[], None]) -> None:
        self._seconds = minutes * SECONDS_PER_MINUTE
        self._write = write
        self._next = time.monotonic() + self._seconds

    def tick(self) -> None:
        """Write one if it is time."""
        if time.monotonic() < self._next:
            return
        try:
            self._write()
        except (ConfigurationError, NotWritableError, MemoryError, OverflowError) as error:
            print(f"edgeflock: {error}; the simulation goes on without a new checkpoint", file=sys.stderr)
        self._next = time.monotonic() + self._seconds


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """A checkpoint's file for this simulation alone, which takes it away at its end: the same command begins anew.

    Raises:
        ConfigurationError: another simulation has it, or nothing can be written beside it.
    """
    if not path.name:
        raise ConfigurationError(f"--checkpoint {path}: this is a folder; name a file in it")
    lock = FileLock(path.with_name(f".{path.name}.edgeflock-lock"))
    if not lock.take():
        raise ConfigurationError(
            f"checkpoint {path}: another simulation writes it; wait, or choose another --checkpoint"
        )
    try:
        yield
        path.unlink(missing_ok=True)
    finally:
        lock.release()
