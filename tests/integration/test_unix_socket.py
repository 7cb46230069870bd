"""The sample socket: a bad line is answered with one error, and disturbs no other client."""

import array
import asyncio
import contextlib
import json
import socket
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from edge_agent.core.lifecycle import State
from edge_agent.core.round_decisions import TaskState
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.sources.bounded_lines import MAX_HELD_BYTES, MAX_LINE_BYTES
from edge_agent.sources.intake import SampleIntake
from edge_agent.sources.prediction_command import CannotPredictError, Predicted
from edge_agent.sources.reading_receiver import OwnSeries, ReadingReceiver
from edge_agent.sources.sample_commands import SampleCommands
from edge_agent.sources.schema_check import MAX_VALUES_WITHOUT_SCHEMA
from edge_agent.sources.unix_socket import MAX_CONNECTIONS, MAX_ERROR_CHARACTERS, SampleSocket, Status
from edge_agent.worker.contract import Progress
from fleet_protocol.bundle import parse_description
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.task_description import TaskDescription
from tests.support.waiting import DEADLINE_SECONDS

DIGITS = parse_description((Path(__file__).parents[2] / "models/digits/bundle/task.json").read_bytes())
SMALL: TaskDescription = msgspec.structs.replace(DIGITS, input=InputSchema([2], -1.0, 1.0), label=LabelSchema(3))
UNBOUNDED = msgspec.structs.replace(SMALL, input=InputSchema([2], -1e300, 1e300))
GOOD = b'{"task": "digits", "inputs": [0, 0.5], "label": 2}'
BEFORE_THE_FIRST_STEP = Progress("reading", 0, 40, None)
STATUS = Status(
    "pi",
    "training",
    True,
    3,
    {"digits": 7},
    {"digits": 1},
    {"digits": 1},
    0,
    5,
    1,
    2,
    BEFORE_THE_FIRST_STEP,
    {"digits": TaskState(State.TRAINING, "version ready: version 7", "")},
    [],
)


async def no_prediction(task: str, _reading: bytes, _own: OwnSeries | None) -> Predicted:
    raise CannotPredictError(f"no manifest of {task} has come yet")


class Gate:
    """A gate over a real store. `description` is what is known of the task digits; `arrived` what was announced."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "run" / "samples.sock"
        self.store = SampleStore(folder / "samples.db", 100)
        self.description: TaskDescription | None = SMALL
        self.arrived: list[str] = []
        intake = SampleIntake(
            frozenset({"digits"}),
            store=self.store.add,
            store_unjudged=self.store.add_unjudged,
            describe=lambda task: self.description if task == "digits" else None,
            arrived=self.arrived.append,
        )
        self._gate = SampleSocket(
            self.socket,
            ReadingReceiver(intake, time.time),
            samples=SampleCommands(
                intake.tasks, self.store, intake.describe, lambda task: self.arrived.append(f"{task} changed")
            ),
            train=lambda: self.arrived.append("asked"),
            status=lambda: STATUS,
            predict=no_prediction,
        )

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncIterator[None]:
        async with asyncio.timeout(DEADLINE_SECONDS):
            serving = asyncio.create_task(self._gate.serve())
            while not (self.socket.exists() or serving.done()):  # noqa: ASYNC110 - the gate announces nothing else
                await asyncio.sleep(0)
            try:
                if serving.done():
                    await serving
                yield
            finally:
                serving.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await serving

    def stored(self) -> list[tuple[bytes, int]]:
        with contextlib.closing(sqlite3.connect(self.store.path)) as connection:
            return connection.execute("SELECT inputs, label FROM samples ORDER BY id").fetchall()


class Client:
    """A program on the device that brings samples."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, line: bytes) -> dict[str, object]:
        self._writer.write(line + b"\n")
        return json.loads(await self._reader.readline())

    async def ask_part(self, line: bytes) -> dict[str, object]:
        """What is said to a line that has no end."""
        self._writer.write(line)
        return json.loads(await self._reader.readline())

    async def is_ended(self) -> bool:
        with contextlib.suppress(ConnectionError):
            return await self._reader.read() == b""
        return True


@contextlib.asynccontextmanager
async def client_of(gate: Gate) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_unix_connection(gate.socket)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


@pytest.fixture
def gate(tmp_path):
    gate = Gate(tmp_path)
    yield gate
    gate.store.close()


async def test_good_sample_is_stored_as_float32_and_announced(gate):
    async with gate.served(), client_of(gate) as client:
        assert await client.ask(GOOD) == {"ok": True}
        assert await client.ask(b' {"label":0, "task":"digits", "inputs":[-1e0, 0.1]} ') == {"ok": True}
    assert gate.stored() == [(array.array("f", [0, 0.5]).tobytes(), 2), (array.array("f", [-1, 0.1]).tobytes(), 0)]
    assert gate.arrived == ["digits", "digits"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"task": "gestures", "inputs": [0, 0], "label": 0}', "unknown task 'gestures'; agent.toml lists ['digits']"),
        (b'{"task": "digits", "inputs": [0], "label": 0}', "input has 1 values; digits takes 2"),
        (b'{"task": "digits", "inputs": [0, 0, 0], "label": 0}', "input has 3 values; digits takes 2"),
        (b'{"task": "digits", "inputs": [], "label": 0}', "input is missing; digits takes -1 to 1"),
        (b'{"task": "digits", "inputs": [[0, 0]], "label": 0}', "inputs[0] is a list, and should be a number"),
        (b'{"task": "digits", "inputs": [0, 0], "label": 3}', "label is 3; digits takes a whole number from 0 to 2"),
        (b'{"task": "digits", "inputs": [0, 0], "label": -1}', "label is -1; digits takes a whole number"),
        (b'{"task": "digits", "inputs": [0, 0], "label": 1.5}', "label is 1.5; digits takes a whole number"),
        (b'{"task": "digits", "inputs": [0, 0], "label": [1, 2]}', "label has 2 values; digits takes 1"),
        (b'{"task": "digits", "inputs": [0, 0], "label": true}', "label is true or false, and should be a number"),
        (b'{"task": "digits", "inputs": [0, 0], "label": 99999999999999999999}', "label is 1e+20; digits takes"),
        (b'{"task": "digits", "inputs": [0, 0], "label": 1' + b"0" * 400 + b"}", "can be trained on"),
        (b'{"task": "digits", "inputs": [0, 0], "label": NaN}', "it is not a number that can be trained on"),
        (b'{"task": "digits", "inputs": [0, 1.5], "label": 0}', "input 1 is 1.5; digits takes -1 to 1"),
        (b'{"task": "digits", "inputs": [0, NaN], "label": 0}', "input 1 is nan; digits takes -1 to 1; it is not"),
        (b'{"task": "digits", "inputs": [0, -Infinity], "label": 0}', "can be trained on"),
        (b'{"task": "digits", "inputs": [0, 1e999], "label": 0}', "can be trained on"),
        (b'{"task": "digits", "inputs": [0, NaN], "label": 0, "weight": 2}', "a sample has no 'weight'"),
        (b'{"task": "digits", "inputs": [0, null], "label": 0}', "input 1 is nan; digits takes -1 to 1; it is not"),
        (b'{"task": "digits", "inputs": [0, "0"], "label": 0}', "inputs[1] is a text, and should be a number"),
        (b'{"task": "digits", "inputs": [0, 0]}', "label is missing; digits takes a whole number from 0 to 2"),
        (b'{"task": "digits", "inputs": [0, 0], "label": null}', "label is missing"),
        (b'{"task": "digits", "label": 0}', "a sample needs 'inputs'"),
        (b'{"task": "digits", "inputs": 0, "label": 0}', "inputs is a number, and should be an object or a list"),
        (b'{"task": "digits", "inputs": [0, 0], "label": 0, "weight": 2}', "a sample has no 'weight'"),
        (b'{"task": 7, "inputs": [0, 0], "label": 0}', "task is a number, and should be a text"),
        (b'{"task": "digits", "inputs": [0, 0], "label": 0', "not valid JSON: Input data was truncated"),
        (b'{"command": "reboot"}', "Invalid enum value 'reboot' - at `command`; choose one of status"),
        (b'{"command": "status", "now": true}', "unknown key 'now'; the keys are command"),
        (b'{"command": ', "Input data was truncated"),
        (b'{"command": "status\xff"}', "utf-8"),
        (b'{"command": "predict", "task": "\xff"}', "utf-8"),
        (b'{"command": "forget", "task": "\xff"}', "utf-8"),
        (b"", "not valid JSON"),
        (b"[]", "a sample is a list, and should be an object"),
        (b"hello", "not valid JSON"),
        (b"\x00\xff\xfe", "not valid JSON"),
        (b'{"task": "\xff", "inputs": [0, 0], "label": 0}', "utf-8"),
        (b"[" * 100_000, "a list"),
        (b"[NaN, " * 9_000, "not valid JSON"),
        (b'{"inputs":' * 50_000, "an object"),
    ],
)  # fmt: skip
async def test_bad_line_gets_one_error_and_the_next_good_one_passes(gate, line, words):
    async with gate.served(), client_of(gate) as client:
        answer = await client.ask(line)
        assert answer["ok"] is False
        assert words.lower() in answer["error"].lower()
        assert gate.stored() == []
        assert await client.ask(GOOD) == {"ok": True}
    assert len(gate.stored()) == 1
    assert gate.arrived == ["digits"]


@pytest.mark.parametrize("value", [b"3.5e38", b"-3.5e38", b"1e308", b"-1e308"])
@pytest.mark.parametrize("description", [None, UNBOUNDED], ids=["schema unknown", "schema allows it"])
async def test_value_that_would_overflow_float32_is_never_stored(gate, value, description):
    gate.description = description
    async with gate.served(), client_of(gate) as client:
        answer = await client.ask(b'{"task": "digits", "inputs": [0, ' + value + b'], "label": 0}')
        assert "input 1" in answer["error"]
        assert await client.ask(b'{"task": "digits", "inputs": [0, 3.4e38], "label": 0}') == {"ok": True}


async def test_before_the_schema_is_known_samples_wait_and_are_judged_once_it_is(gate):
    gate.description = None
    async with gate.served(), client_of(gate) as client:
        for line in (
            b'{"task": "digits", "inputs": [9, 9, 9], "label": 2}',
            b'{"task": "digits", "inputs": [0, 0.5], "label": 2.0}',
            b'{"task": "digits", "inputs": [0, 0.5], "label": [2, 2]}',
            b'{"task": "digits", "inputs": [0, null], "label": 2}',
        ):
            assert await client.ask(line) == {"ok": True}
        assert (
            "not a number that can be trained on"
            in (await client.ask(b'{"task": "digits", "inputs": [0], "label": NaN}'))["error"]
        )
    assert (gate.stored(), gate.store.count("digits"), gate.store.count_after("digits", 0)) == ([], 4, 4)
    judged = gate.store.judge(SMALL)
    assert (judged.kept, judged.refused) == (1, 3)
    assert judged.reason.startswith("input has 3 values; digits takes 2")
    assert gate.stored() == [(array.array("f", [0, 0.5]).tobytes(), 2)]
    assert gate.store.count("digits") == 1
    assert gate.store.judge(SMALL).kept == 0


@pytest.mark.parametrize("values", [MAX_VALUES_WITHOUT_SCHEMA + 1, 2_000_001])
async def test_before_the_schema_is_known_the_values_of_a_sample_are_bounded(gate, values):
    gate.description = None
    async with gate.served(), client_of(gate) as client:
        answer = await client.ask(b'{"task": "digits", "inputs": [' + b"1," * (values - 1) + b'1], "label": 0}')
        assert answer["ok"] is False
        assert str(MAX_VALUES_WITHOUT_SCHEMA) in answer["error"]
        assert await client.ask(GOOD) == {"ok": True}


@pytest.mark.parametrize("written", [b"2", b"2.0", b"2e0"])
async def test_one_number_is_one_class_however_it_is_written(gate, written):
    async with gate.served(), client_of(gate) as client:
        assert await client.ask(b'{"task": "digits", "inputs": [0, 0.5], "label": ' + written + b"}") == {"ok": True}
    assert gate.stored() == [(array.array("f", [0, 0.5]).tobytes(), 2)]


async def test_unfinished_lines_take_bounded_memory_and_others_are_served(gate):
    part = b"[" + b"0," * (MAX_LINE_BYTES // 2 - 8)
    async with gate.served(), contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(client_of(gate)) for _ in range(3)]
        told = [asyncio.create_task(client.ask_part(part)) for client in slow]
        done, _ = await asyncio.wait(told, return_when=asyncio.FIRST_COMPLETED)
        assert str(MAX_HELD_BYTES) in done.pop().result()["error"]
        async with client_of(gate) as other:
            assert await other.ask(GOOD) == {"ok": True}
        for waiting in told:
            waiting.cancel()


async def test_one_connection_more_than_there_may_be_closes_the_one_that_was_silent_longest(gate):
    async with gate.served(), contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(gate)) for _ in range(MAX_CONNECTIONS)]
        for client in clients:
            assert await client.ask(GOOD) == {"ok": True}
        assert await clients[0].ask(GOOD) == {"ok": True}
        newest = await stack.enter_async_context(client_of(gate))
        assert await newest.ask(GOOD) == {"ok": True}
        assert await clients[1].is_ended()
        assert await clients[0].ask(GOOD) == {"ok": True}


@pytest.mark.parametrize(
    "line", [b'{"task": "%s", "inputs": [0, 0]}', b'{"task": "digits", "%s": 0}', b'{"command": "%s"}']
)
async def test_answer_to_a_long_name_is_short(gate, line):
    async with gate.served(), client_of(gate) as client:
        answer = await client.ask(line % (b"x" * 1_000_000))
        assert "xxxxxxxx" in answer["error"]
        assert len(answer["error"]) <= MAX_ERROR_CHARACTERS


async def test_line_without_an_end_is_cut_off_and_others_are_served(gate):
    async with gate.served(), client_of(gate) as endless, client_of(gate) as other:
        answer = await endless.ask(b"[" + b"0," * (MAX_LINE_BYTES // 2 + 1))
        assert answer == {"ok": False, "error": f"line exceeds {MAX_LINE_BYTES} bytes"}
        assert await endless.is_ended()
        assert await other.ask(GOOD) == {"ok": True}


async def test_command_asks_for_training(gate):
    async with gate.served(), client_of(gate) as client:
        assert await client.ask(b'{"command": "train"}') == {"ok": True}
    assert gate.arrived == ["asked"]


async def test_status_tells_what_the_agent_does(gate):
    async with gate.served(), client_of(gate) as client:
        assert await client.ask(b'{"command": "status"}') == msgspec.to_builtins(STATUS)
        told = await client.ask(b'{ "command" : "status" }')
        assert msgspec.convert(told, Status) == STATUS


async def test_client_that_leaves_in_the_middle_of_a_line_costs_nothing(gate):
    async with gate.served():
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(str(gate.socket))
            rude.sendall(GOOD + b"\n" + GOOD[:20])
        async with client_of(gate) as client:
            assert await client.ask(GOOD) == {"ok": True}
    assert len(gate.stored()) in {1, 2}


async def test_full_disk_is_said_and_the_gate_stays_open(gate):
    async with gate.served(), client_of(gate) as client:
        assert await client.ask(GOOD) == {"ok": True}
        gate.description = None
        (pages,) = gate.store._connection.execute("PRAGMA page_count").fetchone()
        gate.store._connection.execute(f"PRAGMA max_page_count={pages}")
        large = b'{"task": "digits", "inputs": [' + b"0," * 20_000 + b'0], "label": 0}'
        assert "disk full" in (await client.ask(large))["error"]
        gate.store._connection.execute("PRAGMA max_page_count=100000")
        assert await client.ask(large) == {"ok": True}
    assert gate.arrived == ["digits", "digits"]


async def test_ending_does_not_wait_for_connected_clients(gate):
    async with contextlib.AsyncExitStack() as stack:
        async with gate.served():
            client = await stack.enter_async_context(client_of(gate))
            assert await client.ask(GOOD) == {"ok": True}
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await client.is_ended()
        assert not gate.socket.exists()


async def test_socket_left_behind_by_a_killed_agent_is_replaced(gate):
    gate.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(gate.socket))
    serving = asyncio.create_task(gate._gate.serve())
    while True:
        try:
            async with asyncio.timeout(DEADLINE_SECONDS), client_of(gate) as client:
                assert await client.ask(GOOD) == {"ok": True}
            break
        except ConnectionRefusedError:
            await asyncio.sleep(0)
    serving.cancel()


async def test_socket_in_use_by_another_agent_is_refused_and_stays_there(gate):
    async with gate.served():
        with pytest.raises(ConfigurationError, match=r"sample_socket .* is in use by another agent"):
            await gate._gate.serve()
        async with client_of(gate) as client:
            assert await client.ask(GOOD) == {"ok": True}


async def test_socket_of_a_listener_that_is_too_busy_is_in_use(gate):
    gate.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as busy, contextlib.ExitStack() as waiting:
        busy.bind(str(gate.socket))
        busy.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                client = waiting.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(gate.socket))
        with pytest.raises(ConfigurationError, match="is in use by another agent"):
            await gate._gate.serve()
    assert gate.socket.exists()


async def test_socket_that_another_process_has_put_in_its_place_is_left_alone(gate):
    async with gate.served():
        gate.socket.unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(gate.socket))
    assert gate.socket.is_socket()


async def test_file_in_the_place_of_the_socket_is_never_deleted(gate):
    gate.socket.parent.mkdir()
    gate.socket.write_text("the only copy of something")
    with pytest.raises(ConfigurationError, match=r"sample_socket .*choose another path"):
        async with asyncio.timeout(DEADLINE_SECONDS):
            await gate._gate.serve()
    assert gate.socket.read_text() == "the only copy of something"


MULTI_LABEL = LabelSchema(2, "multi_label")
REGRESSION = LabelSchema(kind="regression", values=1)
RECONSTRUCTION = LabelSchema(kind="reconstruction")


@pytest.mark.parametrize(
    ("schema", "label", "stored"),
    [(MULTI_LABEL, b"[0, 1]", [0, 1]), (REGRESSION, b"-21.5", [-21.5]), (REGRESSION, b"[7]", [7]),
     (REGRESSION, b"21", [21]), (REGRESSION, b"21.0", [21]),
     (RECONSTRUCTION, b"null", [])],
)  # fmt: skip
async def test_label_of_another_kind_is_stored_as_float32(gate, schema, label, stored):
    gate.description = msgspec.structs.replace(SMALL, label=schema)
    async with gate.served(), client_of(gate) as client:
        assert await client.ask(b'{"task": "digits", "inputs": [0, 0], "label": ' + label + b"}") == {"ok": True}
    assert [entry for _, entry in gate.stored()] == [array.array("f", stored).tobytes()]


@pytest.mark.parametrize(
    ("schema", "label", "words"),
    [
        (MULTI_LABEL, b"[0, 1, 1]", "label has 3 values; digits takes 2"),
        (MULTI_LABEL, b"[0, 0.5]", "label 1 is 0.5; digits takes 0 or 1"),
        (MULTI_LABEL, b"1", "label has 1 values"),
        (MULTI_LABEL, b"null", "label is missing; digits takes 0 or 1 for each class"),
        (REGRESSION, b"1e39", "label is 1e+39; digits takes -3.40282e+38 to 3.40282e+38"),
        (REGRESSION, b"NaN", "it is not a number that can be trained on"),
        (REGRESSION, b"null", "label is missing; digits takes -3.4"),
        (REGRESSION, b'"warm"', "label is a text, and should be a number"),
        (RECONSTRUCTION, b"3", "label has 1 values; digits takes 0"),
    ],
)
async def test_label_that_does_not_fit_its_kind_is_refused(gate, schema, label, words):
    gate.description = msgspec.structs.replace(SMALL, label=schema)
    async with gate.served(), client_of(gate) as client:
        answer = await client.ask(b'{"task": "digits", "inputs": [0, 0], "label": ' + label + b"}")
    assert words in answer["error"]
    assert gate.stored() == []


async def test_label_that_is_corrected_counts_as_a_new_sample(gate: Gate) -> None:
    async with gate.served(), client_of(gate) as client:
        for label in (0, 1):
            assert await client.ask(b'{"task": "digits", "inputs": [0, 0.5], "label": %d}' % label) == {"ok": True}
        by_number = b'{"command": "correct", "task": "digits", "sample": 1, "label": 2}'
        assert await client.ask(by_number) == {"ok": True, "sample": 3}
        assert "no such sample any more" in (await client.ask(by_number))["error"]
        by_inputs = b'{"command": "correct", "task": "digits", "inputs": [0, 0.5], "label": 0}'
        assert await client.ask(by_inputs) == {"ok": True, "sample": 4}
    assert [label for _, label in gate.stored()] == [1, 0]
    assert gate.store.count_after("digits", 2) == 1
    assert gate.arrived.count("digits changed") == 2


async def test_samples_are_forgotten_by_number_or_all(gate: Gate) -> None:
    async with gate.served(), client_of(gate) as client:
        for _ in range(5):
            await client.ask(GOOD)
        some = b'{"command": "forget", "task": "digits", "samples": [1, 3, 99]}'
        assert await client.ask(some) == {"ok": True, "forgotten": 2}
        assert await client.ask(b'{"command": "forget", "task": "digits"}') == {"ok": True, "forgotten": 3}
    assert gate.stored() == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            b'"correct", "task": "digits", "sample": 1, "label": 3',
            "label is 3; digits takes a whole number from 0 to 2",
        ),
        (b'"correct", "task": "digits", "label": 1', "name the sample by"),
        (b'"correct", "task": "digits", "sample": 1, "inputs": [0, 0], "label": 1', "not both"),
        (b'"correct", "task": "digits", "sample": 0, "label": 1', ">= 1"),
        (b'"correct", "task": "digits", "sample": 1e99, "label": 1', "see docs/samples.md"),
        (b'"correct", "task": "digits", "inputs": [0], "label": 1', "input has 1 values; digits takes 2"),
        (b'"correct", "task": "faces", "sample": 1, "label": 1', "unknown task 'faces'"),
        (b'"forget", "task": "faces"', "unknown task 'faces'"),
        (b'"forget"', "required field `task`"),
        (b'"forget", "task": "digits", "samples": [-1]', ">= 1"),
        (b'"forget", "task": "digits", "sample": 1', "unknown field `sample`"),
    ],
)
async def test_change_that_can_not_be_made_is_said_and_changes_nothing(gate: Gate, asked: bytes, words: str) -> None:
    async with gate.served(), client_of(gate) as client:
        await client.ask(GOOD)
        answer = await client.ask(b'{"command": ' + asked + b"}")
    assert not answer["ok"]
    assert words in answer["error"]
    assert [label for _, label in gate.stored()] == [2]
    assert "digits changed" not in gate.arrived


async def test_labels_can_not_be_corrected_before_the_schema_is_known(gate: Gate) -> None:
    gate.description = None
    async with gate.served(), client_of(gate) as client:
        answer = await client.ask(b'{"command": "correct", "task": "digits", "sample": 1, "label": 1}')
    assert "try again later" in answer["error"]
