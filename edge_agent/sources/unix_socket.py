"""The sample socket: a Unix socket that takes samples, one JSON document per line, from any language.

    {"task": "digits", "inputs": [0.0, 0.5, ...], "label": 3}   ->   {"ok": true}
    {"command": "status"}                                       ->   {"state": "sleeping", ...}

`inputs` are the values of one sample in C order. `label` is a class index, a list of values where the task learns
several, one number where it learns one, and left out where the inputs are what is learned. A line that is
refused is answered with {"ok": false, "error": "..."}; the connection stays open.
"""

import asyncio
import contextlib
import logging
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from edge_agent.sources.schema_check import Sample, check_sample
from edge_agent.worker.contract import Progress
from fleet_host.log_lines import log_line
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MIB

MAX_LINE_BYTES = 4 * MIB
SOCKET_MODE = 0o660

_COMMAND = re.compile(rb'\s*{\s*"command"\s*:')

logger = logging.getLogger(__name__)


class Command(msgspec.Struct, forbid_unknown_fields=True):
    """A command to the agent."""

    command: Literal["status"]


class Answer(msgspec.Struct, omit_defaults=True):
    """The answer to a sample."""

    ok: bool
    error: str = ""


class Status(msgspec.Struct):
    """The state of the agent, for people and programs on the device; `progress` is that of the running round."""

    device: str
    state: str
    connected: bool
    boot: int
    versions: dict[str, int]
    samples: dict[str, int]
    new_samples: dict[str, int]
    waiting_updates: int
    accepted_updates: int
    rejected_updates: int
    progress: Progress | None = None


StoreSample = Callable[[str, bytes, int | bytes], object]
"""(task, inputs, label), in the form that `check_sample` gives; raises `sqlite3.Error` where it can't."""


class SampleSocket:
    """Serves the socket for as long as the agent runs, with or without a broker."""

    def __init__(
        self,
        path: Path,
        tasks: frozenset[str],
        *,
        store: StoreSample,
        describe: Callable[[str], TaskDescription | None],
        arrived: Callable[[str], None],
        status: Callable[[], Status],
    ) -> None:
        self._path = path
        self._store = store
        self._tasks = tasks
        self._describe = describe
        self._arrived = arrived
        self._status = status
        self._connections: set[asyncio.StreamWriter] = set()

    async def serve(self) -> None:
        """Run until cancelled.

        Raises:
            ConfigurationError: the socket can't be made.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            server = await asyncio.start_unix_server(self._serve_client, self._path, limit=MAX_LINE_BYTES)
            self._path.chmod(SOCKET_MODE)
        except OSError as error:
            raise ConfigurationError(f"sample_socket {self._path}: {error}; choose another path") from error
        try:
            await asyncio.get_running_loop().create_future()  # not serve_forever: it waits until every client has left
        finally:
            server.close()
            for connection in self._connections:
                connection.close()
            self._path.unlink(missing_ok=True)

    async def _serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            with contextlib.suppress(ConnectionError):
                while line := await self._next_line(reader, writer):
                    writer.write(self._answer(line) + b"\n")
                    await writer.drain()
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _next_line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        try:
            return await reader.readline()
        except ValueError:  # the stream's limit was passed: what follows has no beginning
            writer.write(msgspec.json.encode(Answer(ok=False, error=f"line exceeds {MAX_LINE_BYTES} bytes")) + b"\n")
            return b""

    def _answer(self, line: bytes) -> bytes:
        if _COMMAND.match(line):
            return msgspec.json.encode(self._command(line))
        try:
            sample = msgspec.json.decode(line, type=Sample)
            inputs, label = check_sample(sample, self._tasks, self._describe(sample.task))
            self._store(sample.task, inputs, label)
        except (msgspec.DecodeError, ValueError) as error:
            return msgspec.json.encode(Answer(ok=False, error=str(error)))
        except sqlite3.Error as error:
            logger.error(log_line("sample_not_stored", task=sample.task, error=error))
            return msgspec.json.encode(Answer(ok=False, error=f"not stored: {error}; is the disk full?"))
        self._arrived(sample.task)
        return msgspec.json.encode(Answer(ok=True))

    def _command(self, line: bytes) -> Status | Answer:
        try:
            msgspec.json.decode(line, type=Command)
        except msgspec.DecodeError as error:
            return Answer(ok=False, error=str(error))
        return self._status()
