"""When checkpoints are written: every few minutes of real time, between two events."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

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


def remove(path: Path) -> None:
    """The simulation has come to its end: the same command begins anew."""
    path.unlink(missing_ok=True)
