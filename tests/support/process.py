"""A program that a test starts, kills and starts again."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import psutil

from tests.support.waiting import DEADLINE_SECONDS, until

TREE = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    """Ours, with this very tree's programs first."""
    return os.environ | {"PYTHONPATH": str(TREE)}


class Process(Protocol):
    """What is needed of a `subprocess.Popen`."""

    pid: int

    def poll(self) -> int | None: ...
    def wait(self, timeout: float) -> int: ...


class RestartableProcess:
    """At most one process at a time; everything it says goes to the end of one file. `variables` of its environment are
    given in addition to ours, `started_by` is a command that takes the program's as its last arguments and becomes it.
    """

    def __init__(self, log_file: Path) -> None:
        self.log_file = log_file
        self.variables: Mapping[str, str] = {}
        self.started_by: Sequence[str] = ()
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    def exit_status(self) -> int | None:
        """Of the process that was started last; None while it runs, -9 after `kill -9`."""
        assert self._process is not None
        return self._process.poll()

    def kill(self) -> None:
        """`kill -9`: whatever it had in memory is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        return self._end(signal.SIGTERM)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It does nothing meanwhile; what is sent to it waits in its sockets, and is there at once when it goes on."""
        process = psutil.Process(self.pid)
        process.suspend()
        until(lambda: process.status() == psutil.STATUS_STOPPED, "it has stopped")
        yield
        process.resume()

    def log(self) -> str:
        """Everything it has said."""
        return self.log_file.read_text()

    def _spawn(self, command: Sequence[str]) -> None:
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.started_by, *command], stdout=log, stderr=log, env=environment() | self.variables
            )

    def _end(self, number: int) -> int:
        if self._process is None:
            return 0
        if self._process.poll() is None:
            os.kill(self._process.pid, number)
        return int(self._process.wait(timeout=DEADLINE_SECONDS))
