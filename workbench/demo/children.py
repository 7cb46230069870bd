"""The demo's child processes: started, restarted when a signal kills them, stopped cleanly."""

import asyncio
import contextlib
import signal
from collections.abc import Callable
from pathlib import Path

from fleet_host.child_process import bound

FAREWELL_SECONDS = 10.0
"""How long a child may take to end after SIGTERM before it is killed."""
RESTART_PAUSE_SECONDS = 0.3
LOG_TAIL_CHARACTERS = 800


class ChildFailedError(Exception):
    """A child ended by itself, and would again; has the end of its log."""


class Child:
    """One program that is kept running, as systemd would keep it: started again when a signal killed it.

    Without a command it stands for a program that the user runs.
    """

    def __init__(self, name: str, command: list[str] | None, log_file: Path, announce: Callable[[str], None]) -> None:
        self.name = name
        self._command = command
        self._log_file = log_file
        self._announce = announce
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """Of the running process; 0 where there is none right now."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else 0

    async def start(self) -> None:
        """Start it, and keep it running from now on."""
        if self._command is None:
            return
        await self._spawn(self._command)
        self._keeper = asyncio.create_task(self._keep(self._command))

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL where that does not help."""
        self._stopping = True
        if self._process is None or self._keeper is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), FAREWELL_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        with contextlib.suppress(ChildFailedError, asyncio.CancelledError):
            self._keeper.cancel()
            await self._keeper

    def check(self) -> None:
        """Raise the error of the thread that keeps it running.

        Raises:
            ChildFailedError: the child could not be kept running.
        """
        if self._keeper is not None and self._keeper.done() and not self._keeper.cancelled():
            self._keeper.result()

    async def _spawn(self, command: list[str]) -> None:
        with self._log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *bound(command), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    async def _keep(self, command: list[str]) -> None:
        while self._process is not None:
            code = await self._process.wait()
            if self._stopping:
                return
            if code >= 0:
                tail = self._log_file.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]
                raise ChildFailedError(f"{self.name} ended with code {code}; the end of {self._log_file}:\n{tail}")
            self._announce(f"{self.name} was killed (signal {signal.Signals(-code).name}) and is started again")
            await asyncio.sleep(RESTART_PAUSE_SECONDS)
            await self._spawn(command)
