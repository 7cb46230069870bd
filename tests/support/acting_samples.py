"""Samples that do something where a round takes them, in whichever process that is. They leave marks in a folder."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples

LONGEST_WAIT = 60.0


@dataclass(frozen=True, slots=True)
class ActingSamples(Samples):
    """`act` is called with the folder before they are taken."""

    folder: str = ""

    def act(self, folder: Path) -> None:
        """Nothing."""

    def take(self, rows: NDArray[np.int64] | slice) -> Samples:
        """See `Samples.take`."""
        self.act(Path(self.folder))
        return Samples(self.inputs, self.labels, self.newest).take(rows)


@dataclass(frozen=True, slots=True)
class KillingOnce(ActingSamples):
    """Kill the first process that takes some."""

    def act(self, folder: Path) -> None:
        """Leave a mark, and die."""
        if not (folder / "killed").exists():
            (folder / "killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Killing(ActingSamples):
    """Kill every process that takes some."""

    def act(self, folder: Path) -> None:
        """Leave a mark, and die."""
        (folder / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Meeting(ActingSamples):
    """Wait until two processes take some."""

    def act(self, folder: Path) -> None:
        """Leave a mark, and wait for another one."""
        (folder / str(os.getpid())).touch()
        deadline = time.monotonic() + LONGEST_WAIT
        while len(list(folder.iterdir())) < 2:
            if time.monotonic() > deadline:
                raise TimeoutError("no other process has come")
            time.sleep(0.01)
