"""Where samples come in: a Unix socket that speaks one JSON document per line, from any language.

    {"task": "digits", "inputs": [0.0, 0.5, ...], "label": 3}   ->   {"ok": true}
    {"command": "status"}                                       ->   {"state": "sleeping", ...}

`inputs` are the values of one sample in C order. `label` is a class index, a list of values where the task learns
several, one number where it learns one, and left out where the inputs are what is learned. A line that is
refused is answered with {"ok": false, "error": "..."}; the connection stays open.
"""

import array
import asyncio
import contextlib
import logging
import math
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec

from edge_agent.shell.sample_store import SampleStore
from edge_agent.worker.contract import Progress
from fleet_protocol.bundle import LabelSchema, TaskDescription
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MIB

MAX_LINE_BYTES = 4 * MIB
SOCKET_MODE = 0o660
LARGEST_FLOAT32 = 3.4028234663852886e38

_COMMAND = re.compile(rb'\s*{\s*"command"\s*:')

log = logging.getLogger(__name__)


class Sample(msgspec.Struct, forbid_unknown_fields=True):
    """One sample of one task, with its label."""

    task: str
    inputs: list[float]
    label: int | float | list[float] | None = None


class Command(msgspec.Struct, forbid_unknown_fields=True):
    """A question to the agent."""

    command: Literal["status"]


class Answer(msgspec.Struct, omit_defaults=True):
    """What a sample is answered with."""

    ok: bool
    error: str = ""


class Status(msgspec.Struct):
    """What the agent does and has, for people and programs on the device; `progress` is that of a round under way."""

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


def check_sample(
    sample: Sample, tasks: frozenset[str], description: TaskDescription | None
) -> tuple[bytes, int | bytes]:
    """Inputs as float32 in bytes, and the label, if they fit the task's schema as far as it is known yet.

    Raises:
        ValueError: saying what does not fit, and what would.
    """
    if sample.task not in tasks:
        raise ValueError(f"unknown task {sample.task!r}; agent.toml lists {sorted(tasks)}")
    lowest, highest = -LARGEST_FLOAT32, LARGEST_FLOAT32
    if description is not None:
        expected = description.input
        if len(sample.inputs) != expected.size:
            raise ValueError(f"{len(sample.inputs)} inputs; {sample.task} takes {expected.size} {expected.shape}")
        lowest, highest = max(lowest, expected.minimum), min(highest, expected.maximum)
    for position, value in enumerate(sample.inputs):
        if not (lowest <= value <= highest) or math.isnan(value):
            raise ValueError(f"input {position} is {value:g}; {sample.task} takes {lowest:g} to {highest:g}")
    return array.array("f", sample.inputs).tobytes(), check_label(
        sample, None if description is None else description.label
    )


def check_label(sample: Sample, schema: LabelSchema | None) -> int | bytes:
    """A class index as it is, any other label as float32 in bytes.

    Raises:
        ValueError: saying what does not fit, and what would.
    """
    label = sample.label
    if isinstance(label, int) if schema is None else schema.kind == "class":
        classes = 2**63 if schema is None else schema.classes
        if not isinstance(label, int) or not 0 <= label < classes:
            raise ValueError(f"label {label} is out of range; {sample.task} takes 0 to {classes - 1}")
        return label
    values = [] if label is None else label if isinstance(label, list) else [label]
    if schema is not None and len(values) != schema.outputs:
        raise ValueError(f"label has {len(values)} values; {sample.task} takes {schema.outputs}")
    for position, value in enumerate(values):
        if not abs(value) <= LARGEST_FLOAT32:
            raise ValueError(f"label {position} is {value:g}, which float32 can't hold")
        if schema is not None and schema.kind == "multi_label" and value not in (0, 1):
            raise ValueError(f"label {position} is {value:g}; {sample.task} takes 0 or 1 for each class")
    return array.array("f", values).tobytes()


class SampleGate:
    """Serves the socket for as long as the agent runs, with or without a broker."""

    def __init__(
        self,
        path: Path,
        store: SampleStore,
        tasks: frozenset[str],
        *,
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
            server = await asyncio.start_unix_server(self._converse, self._path, limit=MAX_LINE_BYTES)
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

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
            self._store.add(sample.task, inputs, label)
        except (msgspec.DecodeError, ValueError) as error:
            return msgspec.json.encode(Answer(ok=False, error=str(error)))
        except sqlite3.Error as error:
            log.error("event=sample_not_stored task=%s error=%r", sample.task, str(error))
            return msgspec.json.encode(Answer(ok=False, error=f"not stored: {error}; is the disk full?"))
        self._arrived(sample.task)
        return msgspec.json.encode(Answer(ok=True))

    def _command(self, line: bytes) -> Status | Answer:
        try:
            msgspec.json.decode(line, type=Command)
        except msgspec.DecodeError as error:
            return Answer(ok=False, error=str(error))
        return self._status()
