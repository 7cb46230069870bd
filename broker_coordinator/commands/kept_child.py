"""A child process of a running coordinator, which is started again whenever it has ended; nothing waits for it."""

import os
import random
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Final

from fleet_host.backoff import delay_seconds
from fleet_host.child_process import bound

LOOK_SECONDS: Final = 1.0
"""Between two looks at whether the child is needed, and whether it runs."""
STABLE_SECONDS: Final = 30.0
"""A child that ran so long is started again at once."""
LEAVING_SECONDS: Final = 5.0
SILENCE_SECONDS: Final = 60.0
"""Without a sign of life, after which it is killed. It gives one each second from when it serves on, which is soon."""
SIGNS_READ: Final = 4096


class KeptChild(ABC):
    """Starts a module of ours, and again whenever it has ended, until `stop`. It dies with this process.

    The module writes a byte to its standard output each second: its signs of life, where no class reads other ones.
    """

    def __init__(
        self,
        name: str,
        module: Sequence[str],
        *,
        inherited: Sequence[int] = (),
        silence_seconds: float = SILENCE_SECONDS,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """`module` is its name and its arguments, `inherited` the file descriptors that it is given,
        `variables` what its environment has beside ours.
        """
        self._environment = os.environ | (variables or {})
        self._command = bound([sys.executable, "-P", "-m", *module])
        self._inherited = tuple(inherited)
        self._silence_seconds = silence_seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the child and the thread."""
        self._stopping.set()
        self._thread.join()

    def is_needed(self) -> bool:
        """Whether it should run now."""
        return True

    def has_given_signs(self) -> bool:
        """Whether the child has, since the last look."""
        if self._child is None or self._child.stdout is None:
            return False
        os.set_blocking(self._child.stdout.fileno(), False)
        try:
            return bool(os.read(self._child.stdout.fileno(), SIGNS_READ))
        except BlockingIOError:
            return False

    @abstractmethod
    def log_started(self, pid: int) -> None:
        """Say that it runs."""

    @abstractmethod
    def log_stuck(self, pid: int, silent_seconds: float) -> None:
        """Say that it is killed, as it gives no signs of life."""

    @abstractmethod
    def log_ended(self, status: int | None) -> None:
        """Say that it has ended by itself."""

    def _run(self) -> None:
        """In one thread, whose end would be the child's too."""
        failures = 0
        while not self._stopping.wait(self._pause(failures)):
            if self.is_needed():
                failures = failures + 1 if self._child_until_it_ends() < STABLE_SECONDS else 0

    @staticmethod
    def _pause(failures: int) -> float:
        return LOOK_SECONDS if not failures else LOOK_SECONDS + delay_seconds(failures - 1, random.random())  # noqa: S311

    def _child_until_it_ends(self) -> float:
        """Seconds that it ran."""
        ran, heard_at = 0.0, time.monotonic()
        with subprocess.Popen(
            self._command, stdout=subprocess.PIPE, pass_fds=self._inherited, env=self._environment
        ) as child:
            self._child = child
            self.log_started(child.pid)
            while child.poll() is None:
                if self.has_given_signs():
                    heard_at = time.monotonic()
                elif time.monotonic() > heard_at + self._silence_seconds:
                    self.log_stuck(child.pid, self._silence_seconds)
                    child.kill()
                if self._stopping.wait(LOOK_SECONDS) or not self.is_needed():
                    child.terminate()
                    try:
                        child.wait(LEAVING_SECONDS)
                    except subprocess.TimeoutExpired:
                        child.kill()
                    return STABLE_SECONDS
                ran += LOOK_SECONDS
        self.log_ended(child.returncode)
        return ran
