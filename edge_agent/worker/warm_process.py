"""The agent's side of a warm worker: starts it, orders a round, stops that, and ends it all."""

import asyncio
import contextlib
import socket
import sys
from dataclasses import dataclass

import psutil

from edge_agent.worker.child import Child, Program, end_child, start_child
from edge_agent.worker.warm_contract import ASK_SECONDS, ORDER, REPORT, STOP

WORKER_COMMAND = (sys.executable, "-P", "-m", "edge_agent.training.warm_worker")
MAX_ERROR_BYTES = 500
END_SECONDS = ASK_SECONDS + 2
"""Longest wait for a round that is asked to stop, and for the worker to end by itself; then it is killed."""


@dataclass(frozen=True, slots=True)
class RoundProcess:
    """The ends of one round's sockets: its job goes in and frames come out; its standard error."""

    output: asyncio.StreamReader
    job: asyncio.StreamWriter
    errors: asyncio.StreamReader
    error_side: asyncio.StreamWriter

    def close(self) -> None:
        """Listen no longer."""
        self.job.close()
        self.error_side.close()


class WarmProcess:
    """One warm worker. It runs one round at a time."""

    def __init__(self, child: Child) -> None:
        self._process = child.process
        self._control = child.connection
        self._is_own = child.is_own
        self._said = asyncio.ensure_future(last_words(child.errors))
        self._has_order = False
        self._spent = 0

    @classmethod
    async def start(cls) -> "WarmProcess":
        """Start one. What keeps a child from serving orders shows in their reports.

        Raises:
            WorkerUnreachableError: it was to run in a unit, which does not start.
        """
        return cls(await start_child(WORKER_COMMAND, Program.WARM_WORKER, reads_errors=True))

    @property
    def runs(self) -> bool:
        """Whether the process is there: its end of the socket ends with it, before the event loop hears of it."""
        try:
            return self._process.returncode is None and self._control.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    @property
    def spent_milliseconds(self) -> int:
        """Processor time so far of the worker and its rounds. Once a child has ended it is 0: then the kernel counts it
        among that of ended children. Of one in a unit it stays as it was when last seen.
        """
        if self._process.returncode is None:
            with contextlib.suppress(psutil.Error):
                worker = psutil.Process(self._process.pid)
                spent = [worker.cpu_times(), *(child.cpu_times() for child in worker.children())]
                self._spent = round(1000 * sum(sum(each[:4]) for each in spent))
                return self._spent
        return 0 if self._is_own else self._spent

    async def last_words(self) -> str:
        """What the process itself has said, and no round's, where it has ended."""
        if self.runs:
            return ""
        return await self._said if self._is_own else "its last words: journalctl -u 'edge-agent-worker@*'"

    async def order(self, share: float) -> RoundProcess:
        """Have a process forked for one round, which runs for `share` of the time."""
        channel, its_channel = socket.socketpair()
        errors, its_errors = socket.socketpair()
        with its_channel, its_errors, contextlib.suppress(ConnectionError):
            socket.send_fds(self._control, [ORDER.pack(share)], [its_channel.fileno(), its_errors.fileno()])
            self._has_order = True
        output, job = await asyncio.open_connection(sock=channel)
        error_stream, error_side = await asyncio.open_connection(sock=errors)
        return RoundProcess(output, job, error_stream, error_side)

    async def report(self) -> int:
        """The exit code of the round's process when it has ended, or the worker's own where that has."""
        report = await self._receive_report()
        self._has_order = False
        if len(report) < REPORT.size:
            return await self._process.wait()
        return int(REPORT.unpack(report)[0])

    async def end(self) -> None:
        """Stop the round that it runs, and end it; where it does not by itself, it is killed, and all with it."""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(END_SECONDS):
                if self._has_order:
                    self._control.sendall(STOP)
                    await self._receive_report()
        _ = self.spent_milliseconds  # the last look, before it ends
        self._control.close()
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._wait()
        except TimeoutError:
            await end_child(self._process)
            await self._said

    async def _receive_report(self) -> bytes:
        report = b""
        with contextlib.suppress(ConnectionError):
            loop = asyncio.get_running_loop()
            while len(report) < REPORT.size and (
                more := await loop.sock_recv(self._control, REPORT.size - len(report))
            ):
                report += more
        return report

    async def _wait(self) -> None:
        await self._process.wait()
        await self._said


async def last_words(stream: asyncio.StreamReader | None) -> str:
    """The last `MAX_ERROR_BYTES` of what comes until the stream's end."""
    words = b""
    with contextlib.suppress(ConnectionError):
        while stream and (more := await stream.read(MAX_ERROR_BYTES)):
            words = (words + more)[-MAX_ERROR_BYTES:]
    return words.decode(errors="replace").strip()
