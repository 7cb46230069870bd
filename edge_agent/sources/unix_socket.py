"""The sample socket: a Unix socket that takes samples, one JSON document per line, from any language.

    {"task": "digits", "inputs": [0.0, 0.5, ...], "label": 3}   ->   {"ok": true}
    {"task": "occupancy", "reading": {"temperature": 21.5}}     ->   {"ok": true}, where the task takes named readings
    {"command": "status"}                                       ->   {"state": "sleeping", ...}
    {"command": "predict", "task": "digits", "reading": ...}    ->   see `prediction_command`
    {"command": "train"}                                        ->   {"ok": true}, and a round of every task is tried
    {"command": "correct", ...}, {"command": "forget", ...}     ->   see `sample_commands`

`inputs` are the values of one sample in C order. `label` is a class index, a list of values where the task learns
several, one number where it learns one, and left out where the inputs are what is learned. A line that is
refused is answered with {"ok": false, "error": "..."}; the connection stays open, unless the line was too long or took
too long.
"""

import asyncio
import contextlib
import logging
import os
import re
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from edge_agent.core.analytics.policy import QueryUse
from edge_agent.core.gossip.status import GossipStatus
from edge_agent.core.round_decisions import TaskState
from edge_agent.preparation.preparation import SeriesStatus
from edge_agent.preparation.refusal import IS_DISK_FULL, ReadingRefusedError, Reason
from edge_agent.sources.bound_socket import account_of, bound_socket
from edge_agent.sources.bounded_lines import READ_BYTES, HeldBytes, LineRefusedError, lines_of
from edge_agent.sources.named_form import NamedForm
from edge_agent.sources.named_line import read_named
from edge_agent.sources.prediction_command import CannotPredictError, Predicted, read_question
from edge_agent.sources.reading_receiver import OwnSeries, ReadingReceiver
from edge_agent.sources.readings import ReadingForm
from edge_agent.sources.sample_commands import SampleCommands
from edge_agent.sources.schema_check import MAX_VALUES_WITHOUT_SCHEMA, check_task
from edge_agent.sources.tally import SourceStatus, SourceTally
from edge_agent.worker.contract import Progress
from fleet_host.log_lines import log_line
from fleet_protocol.document_errors import NOT_JSON, explain
from fleet_protocol.sample_line import read_sample

MAX_CONNECTIONS = 32
"""One more, and that which has been silent for longest is closed."""

VALUES_NOT_COUNTED = 10_000
"""So few are never too many for memory: the check of the sample itself says what is wrong."""

MAX_ERROR_CHARACTERS = 500
"""Of an answer: a line may name a task of four million."""

_COMMAND = re.compile(rb'\s*{\s*"command"\s*:\s*(?:"(\w*)")?')
"""A line that is a command, and which."""
_READING = re.compile(rb'\s*{\s*("task"\s*:\s*"[^"]*"\s*,\s*)?"(reading|series)"\s*:')

logger = logging.getLogger(__name__)


class Command(msgspec.Struct, forbid_unknown_fields=True):
    """A command to the agent."""

    command: Literal["status", "train"]


class Answer(msgspec.Struct, omit_defaults=True):
    """The answer to a sample."""

    ok: bool
    error: str = ""


class Status(msgspec.Struct):
    """The state of the agent, for people and programs on the device; `progress` is that of the running round.

    Updates are counted since the agent's start; withheld ones made validation samples worse, merged ones found no room
    in the outbox and are learned again.
    """

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
    withheld_updates: int
    progress: Progress | None
    tasks: dict[str, TaskState]
    sources: list[SourceStatus]
    waiting_bytes: int = 0
    merged_updates: int = 0
    series: dict[str, SeriesStatus] = {}
    """Of named readings, by task, or `task/series`."""
    coordinator_key: str = ""
    """The public key that this device trusts, in hex."""
    dropped: dict[str, dict[str, int]] = {}
    """Samples that retention has dropped since the store was begun, by task and rule."""
    queries: QueryUse = QueryUse()
    """What the fleet has asked about samples, and what the answers have cost."""
    clusters: dict[str, int] = {}
    """By task, the cluster that the coordinator has put this device into."""
    delta: float = 1e-5
    """`[privacy] delta`, at which `told` and `told_of_device` are."""
    told: dict[str, float | None] = {}
    """By task with privacy of samples: epsilon of the sample that most was told of; None where no epsilon bounds it:
    some rounds were without noise, or may have been."""
    told_of_device: dict[str, float] = {}
    """By task with noise behind masks: epsilon of this device."""
    resting: dict[str, dict[str, int]] = {}
    """Of such a task: samples that took part in no step of the last round, by the name of their budget."""
    shard: str = ""
    """The slice of the fleet in which this device speaks and hears now."""
    gossip: dict[str, GossipStatus] = {}
    """By task that is learned without a coordinator."""


@dataclass(frozen=True, slots=True)
class _Client:
    """One connection: the account of the program behind it, and the series of what it asks to predict for."""

    account: str
    asked_before: OwnSeries


class SampleSocket:
    """Serves the socket for as long as the agent runs, with or without a broker."""

    def __init__(
        self,
        path: Path,
        receiver: ReadingReceiver,
        *,
        samples: SampleCommands,
        train: Callable[[], None],
        status: Callable[[], Status],
        predict: Callable[[str, bytes, OwnSeries | None], Awaitable[Predicted]],
    ) -> None:
        """`predict` takes a task, a reading as JSON, and the series that it follows if that is not the device's; raises
        `CannotPredictError`.
        """
        self._path = path
        self._receiver = receiver
        self._intake = receiver.intake
        self._samples = samples
        self._train = train
        self._status = status
        self._predict = predict
        self.tally = SourceTally("socket", "")
        """What came of the samples of all programs, over all tasks."""
        self.listens = asyncio.Event()
        """Set once the socket is there."""
        self._held = HeldBytes()
        self._connections: dict[asyncio.StreamWriter, None] = {}
        """The one that has been silent for longest is the first."""

    async def serve(self) -> None:
        """Run until cancelled.

        Raises:
            ConfigurationError: the socket can't be made, or another process listens at it.
        """
        bound = bound_socket(self._path)
        own = self._path.lstat()
        server = await asyncio.start_unix_server(self._serve_client, sock=bound, limit=READ_BYTES)
        self.listens.set()
        try:
            await asyncio.get_running_loop().create_future()  # not serve_forever: it waits until every client has left
        finally:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(self._path.lstat(), own):  # and not what another process has put in its place
                    self._path.unlink()
            server.close()
            for connection in self._connections:
                connection.close()

    async def _serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._connections) >= MAX_CONNECTIONS:
            self._close_longest_silent()
        self._connections[writer] = None
        try:
            with contextlib.suppress(ConnectionError):
                await self._answer_lines(reader, writer)
        finally:
            self._connections.pop(writer, None)
            writer.close()

    async def _answer_lines(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(account_of(writer.get_extra_info("socket")), {})
        try:
            async with contextlib.aclosing(lines_of(reader, self._held)) as lines:
                async for line in lines:
                    if writer in self._connections:
                        self._connections[writer] = self._connections.pop(writer)
                    writer.write(await self._answer(line, client) + b"\n")
                    await writer.drain()
        except LineRefusedError as error:
            writer.write(self._refused("too_long", str(error)) + b"\n")

    def _close_longest_silent(self) -> None:
        silent = next(iter(self._connections))
        del self._connections[silent]
        silent.transport.abort()
        logger.warning(log_line("sample_connection_closed", connections=MAX_CONNECTIONS))

    async def _answer(self, line: bytes, client: "_Client") -> bytes:
        if command := _COMMAND.match(line):
            return await self._obey(command[1], line, client)
        return self._take(line, client)

    async def _obey(self, name: bytes, line: bytes, client: "_Client") -> bytes:
        if name == b"predict":
            return await self._prediction(line, client.asked_before)
        return self._change(line) if name in {b"correct", b"forget"} else msgspec.json.encode(self._command(line))

    def _take(self, line: bytes, client: "_Client") -> bytes:
        try:
            if _READING.match(line):
                self._take_reading(line, client)
            else:
                self._take_sample(line)
        except ReadingRefusedError as error:
            return self._refused(error.reason, str(error))
        self.tally.take()
        return msgspec.json.encode(Answer(ok=True))

    def _take_sample(self, line: bytes) -> None:
        try:
            self._check_count(line)
            sample = read_sample(line)
        except ValueError as error:
            raise ReadingRefusedError("not_a_sample", str(error)) from error
        self._receiver.store(sample)

    def _take_reading(self, line: bytes, client: "_Client") -> None:
        try:
            named = read_named(line)
            check_task(named.task, self._intake.tasks)
        except ValueError as error:
            raise ReadingRefusedError("not_a_sample", str(error)) from error
        form = ReadingForm(named.task, named=NamedForm(series=named.series))
        self._receiver.take(form, named.reading, account=client.account)

    async def _prediction(self, line: bytes, asked_before: OwnSeries) -> bytes:
        try:
            question = read_question(line)
            series = asked_before if question.follows else None
            return msgspec.json.encode(await self._predict(question.task, bytes(question.reading), series))
        except CannotPredictError as error:
            return msgspec.json.encode(Answer(ok=False, error=_shortened(str(error))))

    def _change(self, line: bytes) -> bytes:
        try:
            return msgspec.json.encode(self._samples.change(line))
        except ValueError as error:
            return msgspec.json.encode(Answer(ok=False, error=_shortened(str(error))))
        except sqlite3.Error as error:
            return msgspec.json.encode(Answer(ok=False, error=f"not stored: {error}; {IS_DISK_FULL}"))

    def _refused(self, reason: Reason, words: str) -> bytes:
        self.tally.refuse(reason, words)
        return msgspec.json.encode(Answer(ok=False, error=_shortened(words)))

    def _check_count(self, line: bytes) -> None:
        """Refuse what has more values than any task takes, before they are numbers in memory."""
        if (commas := line.count(b",")) <= VALUES_NOT_COUNTED:
            return
        known = [self._intake.describe(task) for task in self._intake.tasks]
        largest = max(
            MAX_VALUES_WITHOUT_SCHEMA if each is None else each.input.size + each.label.size for each in known
        )
        if commas > largest + VALUES_NOT_COUNTED:
            raise ValueError(f"a line of about {commas} values; the largest sample that is taken has {largest}")

    def _command(self, line: bytes) -> Status | Answer:
        try:
            asked = msgspec.json.decode(line, type=Command)
        except msgspec.ValidationError as error:
            return Answer(ok=False, error=_shortened(explain(error, Command, msgspec.json.decode(line))))
        except NOT_JSON as error:
            return Answer(ok=False, error=_shortened(str(error)))
        if asked.command == "status":
            return self._status()
        self._train()
        return Answer(ok=True)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_ERROR_CHARACTERS else text[: MAX_ERROR_CHARACTERS - 1] + "…"
