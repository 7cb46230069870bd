"""Starts a program that runs graphs: as a child of the agent, or in a unit of its own where systemd offers one.

Either way the two are connected by one Unix socket, which is the program's standard input and output. In a unit
(systemd/edge-agent-worker@.service) the program has no network and limits of its own, and is no child of the agent.
"""

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

SOCKET_VARIABLE = "EDGE_AGENT_WORKER_SOCKET"
"""Set by systemd/edge-agent.service: where systemd starts a worker for each connection."""
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""numpy would keep 32 MB ready per core for threads that never run."""
HELLO: Final = struct.Struct("<I")
"""What a program in a unit says first: its process id."""
HELLO_SECONDS = 60.0
"""Longest wait for it: systemd and Python start, which takes some seconds on a small board."""
CODE_UNKNOWN = 1
"""The exit code of a process that is no child: the kernel tells it to systemd alone."""


class Program(Enum):
    """What may run in a unit; each is asked for with one byte."""

    WARM_WORKER = b"w"
    PREDICTOR = b"p"
    LOOK = b"l"


class WorkerUnreachableError(ConnectionError):
    """systemd has not started a worker; says why, and what to do."""


class RunningProcess(Protocol):
    """What is the same for a child and for a process in a unit of its own."""

    @property
    def pid(self) -> int:
        """Its process id."""

    @property
    def returncode(self) -> int | None:
        """Its exit code, None while it runs."""

    def kill(self) -> None:
        """Kill it; raises ProcessLookupError where it has ended."""

    async def wait(self) -> int:
        """Return its exit code when it has ended."""


@dataclass(frozen=True, slots=True)
class Child:
    """A program, and this side of the socket that it reads and answers on.

    `errors` is its standard error where somebody is to read it here; `is_own` where the kernel counts its processor
    time as that of a child.
    """

    process: RunningProcess
    connection: socket.socket
    errors: asyncio.StreamReader | None
    is_own: bool


class UnitProcess:
    """A process that systemd has started. It is known by a file descriptor, as its number may be another's later."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError where it has ended."""
        self.pid = pid
        self._handle = os.pidfd_open(pid)
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._handle, self._note_end)

    @property
    def returncode(self) -> int | None:
        """`CODE_UNKNOWN` once it has ended."""
        return CODE_UNKNOWN if self._ended.is_set() else None

    def kill(self) -> None:
        """Kill it; raises ProcessLookupError where it has ended."""
        if self._ended.is_set():
            raise ProcessLookupError(self.pid)
        signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    async def wait(self) -> int:
        """Return when it has ended."""
        await self._ended.wait()
        return CODE_UNKNOWN

    def _note_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        self._ended.set()


async def start_child(command: Sequence[str], program: Program | None, *, reads_errors: bool = False) -> Child:
    """Start `program`, by `command` where no unit is offered; None is always started by `command`.

    Raises:
        WorkerUnreachableError: a unit is offered, and does not start.
        OSError: the command can't be started.
    """
    if program is not None and (path := os.environ.get(SOCKET_VARIABLE)):
        return await _start_in_unit(path, program)
    own_end, its_end = socket.socketpair()
    with its_end:
        own_end.setblocking(False)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                str(os.getpid()),
                stdin=its_end.fileno(),
                stdout=its_end.fileno(),
                stderr=asyncio.subprocess.PIPE if reads_errors else None,
                env=os.environ | ENVIRONMENT,
            )
        except BaseException:
            own_end.close()
            raise
    return Child(process, own_end, process.stderr, is_own=True)


async def _start_in_unit(path: str, program: Program) -> Child:
    """Connect, which starts it."""
    loop = asyncio.get_running_loop()
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    try:
        async with asyncio.timeout(HELLO_SECONDS):
            await loop.sock_connect(connection, path)
            hello = await _receive(connection, HELLO.size)
            process = UnitProcess(*HELLO.unpack(hello))
            await loop.sock_sendall(connection, program.value)
    except (OSError, EOFError) as error:
        connection.close()
        raise WorkerUnreachableError(
            f"{path}: no worker was started ({error or type(error).__name__}); see: systemctl status"
            " edge-agent-worker.socket, journalctl -u 'edge-agent-worker@*'"
        ) from error
    except BaseException:
        connection.close()
        raise
    return Child(process, connection, None, is_own=False)


async def _receive(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        more = await asyncio.get_running_loop().sock_recv(connection, size - len(received))
        if not more:
            raise EOFError("the connection ended")
        received += more
    return received


async def end_child(process: RunningProcess) -> None:
    """Kill it where it still runs, and wait until it has ended."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
