"""Sources: a folder's files become samples in a child process, one that fails stops no other; Python has a client."""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.client import AgentClient, SampleRefusedError
from edge_agent.configuration import load_configuration
from edge_agent.shell import source_runner
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.source_runner import SourceRunner
from edge_agent.sources import plugins
from edge_agent.sources.intake import SampleIntake
from edge_agent.sources.prediction_command import CannotPredictError, Predicted
from edge_agent.sources.reading_receiver import OwnSeries, ReadingReceiver
from edge_agent.sources.readings import ReadingForm
from edge_agent.sources.sample_commands import SampleCommands
from edge_agent.sources.settings import SourceSettings
from edge_agent.sources.source import ReadingIntake, SourceHost, SourcePlugin
from edge_agent.sources.unix_socket import SampleSocket, Status
from fleet_protocol.bundle import parse_description
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_line import Sample
from fleet_protocol.sample_schema import InputSchema, LabelSchema
from fleet_protocol.task_description import TaskDescription

DIGITS = parse_description((Path(__file__).parents[2] / "models/digits/bundle/task.json").read_bytes())
SMALL: TaskDescription = msgspec.structs.replace(DIGITS, input=InputSchema([2], -1.0, 1.0), label=LabelSchema(3))


async def nothing_predicted(form: ReadingForm, _reading: bytes) -> Predicted:
    raise CannotPredictError(f"no manifest of {form.task} has come yet")


async def no_scores(sample: Sample) -> Predicted:
    raise CannotPredictError(f"no manifest of {sample.task} has come yet")


HOST = SourceHost("home", "pi", nothing_predicted, no_scores, lambda: b"{}")


async def no_prediction(task: str, _reading: bytes, _own: OwnSeries | None) -> Predicted:
    raise CannotPredictError(f"no manifest of {task} has come yet")


DEADLINE_SECONDS = 60
STATUS = Status("pi", "sleeping", True, 1, {}, {}, {}, 0, 0, 0, 0, None, {}, [])


class Device:
    """A sample store behind an intake. `full` makes it refuse, as a full disk does."""

    def __init__(self, folder: Path) -> None:
        self.store = SampleStore(folder / "samples.db", 100)
        self.description: TaskDescription | None = SMALL
        self.full = False
        self.intake = SampleIntake(
            frozenset({"digits"}),
            store=self._store,
            store_unjudged=self._refuse_unjudged,
            describe=lambda _: self.description,
            arrived=lambda _: None,
        )
        self.receiver = ReadingReceiver(self.intake, time.time)

    def _store(self, task: str, inputs: bytes, label: int | bytes, budget: str = "") -> int:
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        return self.store.add(task, inputs, label, budget)

    def _refuse_unjudged(self, sample: Sample) -> None:
        raise AssertionError(f"{sample} came before its schema")

    def labels(self) -> list[int]:
        with contextlib.closing(sqlite3.connect(self.store.path)) as connection:
            return [label for (label,) in connection.execute("SELECT label FROM samples ORDER BY id")]


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


@contextlib.asynccontextmanager
async def running(runner: SourceRunner) -> AsyncIterator[None]:
    async with asyncio.timeout(DEADLINE_SECONDS):
        task = asyncio.create_task(runner.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - a source announces nothing
        await asyncio.sleep(0.01)


def folder_source(folder: Path, **settings: object) -> SourceSettings:
    return SourceSettings("folder", "digits", settings={"path": str(folder), "scan_seconds": 0.02, **settings})


def put_away(inbox: Path) -> set[str]:
    return {str(file.relative_to(inbox)) for file in inbox.glob("*/**/*.*")} - {"2/b.npy"}


async def test_files_of_a_folder_become_samples_and_are_put_away(tmp_path: Path, device: Device) -> None:
    inbox = tmp_path / "inbox"
    (inbox / "2").mkdir(parents=True)
    (inbox / "a.csv").write_text("x,y,label\n0,1,0\n0,7,0\n0,1,1\n")
    np.save(inbox / "2" / "b.npy", np.zeros((1, 2)))
    (inbox / "c.npy").write_bytes(b"no array")
    runner = SourceRunner([folder_source(inbox)], device.receiver, HOST)
    async with running(runner):
        await until(lambda: put_away(inbox) == {"taken/a.csv", "taken/2/b.npy", "refused/c.npy"})
    (status,) = runner.status
    assert (status.taken, status.refused) == (3, {"outside_schema": 1, "unreadable_file": 1})
    assert sorted(device.labels()) == [0, 1, 2]


async def test_link_is_not_followed_to_files_and_folders_of_the_agent(tmp_path: Path, device: Device) -> None:
    (state := tmp_path / "state").mkdir()
    (state / "a.csv").write_text("x,y,label\n0,1,0\n")
    (inbox := tmp_path / "inbox").mkdir()
    (inbox / "link.csv").symlink_to(state / "a.csv")
    (inbox / "3").symlink_to(state)
    runner = SourceRunner([folder_source(inbox)], device.receiver, HOST)
    async with running(runner):
        await until((inbox / "refused/link.csv").is_symlink)
    assert runner.status[0].refused == {"unreadable_file": 1}
    assert (state / "a.csv").exists()
    assert device.labels() == []


async def test_read_files_are_deleted_where_that_is_wished(tmp_path: Path, device: Device) -> None:
    (inbox := tmp_path / "inbox").mkdir()
    (inbox / "a.jsonl").write_text('{"inputs": [0, 1], "label": 1}')
    async with running(SourceRunner([folder_source(inbox, afterwards="delete")], device.receiver, HOST)):
        await until(lambda: not (inbox / "a.jsonl").exists())
    assert put_away(inbox) == set()
    assert device.labels() == [1]


async def test_file_that_can_not_be_put_away_is_not_read(tmp_path: Path, device: Device) -> None:
    (inbox := tmp_path / "inbox").mkdir()
    (inbox / "a.jsonl").write_text('{"inputs": [0, 1], "label": 1}')
    (inbox / "taken").touch()
    runner = SourceRunner([folder_source(inbox)], device.receiver, HOST)
    async with running(runner):
        await until(lambda: "taken" in runner.status[0].failure)
    assert device.labels() == []


async def test_files_wait_for_the_schema_and_for_room_on_the_disk(tmp_path: Path, device: Device) -> None:
    (inbox := tmp_path / "inbox").mkdir()
    (inbox / "a.jsonl").write_text('{"inputs": [0, 1], "label": 1}')
    device.description, device.full = None, True
    runner = SourceRunner([folder_source(inbox)], device.receiver, HOST)
    async with running(runner):
        device.description = SMALL
        await until(lambda: runner.status[0].refused.get("not_stored", 0) > 0)
        assert (inbox / "a.jsonl").exists()
        device.full = False
        await until((inbox / "taken/a.jsonl").exists)
    assert device.labels() == [1]


async def test_file_that_kills_its_reader_is_put_away_and_the_next_is_read(tmp_path: Path, device: Device) -> None:
    (inbox := tmp_path / "inbox").mkdir()
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    shape = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1, 4000000000), }"
    (inbox / "a.npy").write_bytes(header + shape.ljust(117) + b"\n")
    (inbox / "b.jsonl").write_text('{"inputs": [' + "0," * 3_000_000 + '0], "label": 1}')
    (inbox / "c.jsonl").write_text('{"inputs": [0, 1], "label": 1}')
    runner = SourceRunner([folder_source(inbox)], device.receiver, HOST)
    async with running(runner):
        await until((inbox / "taken/c.jsonl").exists)
    assert {"refused/a.npy", "refused/b.jsonl"} <= put_away(inbox)
    assert runner.status[0].refused == {"unreadable_file": 2}
    assert device.labels() == [1]


async def test_folder_that_is_missing_is_said_and_found_once_it_is_there(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_runner, "delay_seconds", lambda _attempt, _uniform: 0.0)
    inbox = tmp_path / "inbox"
    runner = SourceRunner([folder_source(inbox)], device.receiver, HOST)
    async with running(runner):
        await until(lambda: "No such file" in runner.status[0].failure)
        inbox.mkdir()
        await until(lambda: runner.status[0].failure == "")


class NoSettings(msgspec.Struct, forbid_unknown_fields=True):
    pass


async def raise_at_once(_settings: NoSettings, readings: ReadingIntake) -> None:
    readings.take_document({"inputs": [0, 1], "label": 1})
    raise ZeroDivisionError("of the plug-in")


async def test_plugin_that_raises_is_run_again_and_the_others_go_on(
    tmp_path: Path, device: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(source_runner, "delay_seconds", lambda _attempt, _uniform: 0.0)
    monkeypatch.setattr(plugins, "SHIPPED", {**plugins.SHIPPED, "broken": SourcePlugin(NoSettings, raise_at_once)})
    (inbox := tmp_path / "inbox").mkdir()
    (inbox / "a.jsonl").write_text('{"inputs": [0, 1], "label": 2}')
    runner = SourceRunner([SourceSettings("broken", "digits"), folder_source(inbox)], device.receiver, HOST)
    with caplog.at_level(logging.WARNING):
        async with running(runner):
            await until(lambda: runner.status[0].taken > 1 and (inbox / "taken/a.jsonl").exists())
    assert runner.status[0].failure == "ZeroDivisionError: of the plug-in"
    assert "event=source_failed source=broken" in caplog.text


async def test_source_says_that_it_takes_nothing_until_its_broker_has_answered(device: Device) -> None:
    asked = asyncio.Event()

    async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(never_answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        topic = SourceSettings("mqtt", "digits", settings={"topic": "room", "broker": {"host": host, "port": port}})
        runner = SourceRunner([topic], device.receiver, HOST)
        assert runner.status[0].failure == "it has not started yet"
        async with running(runner):
            await asked.wait()
            assert runner.status[0].failure == "it is not connected to its broker yet"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (SourceSettings("carrier-pigeon", "digits"), "kind 'carrier-pigeon' is not installed; there are folder, mqtt"),
        (SourceSettings("folder", "digits"), "sources: settings of 'folder' for digits: missing key `path`"),
        (SourceSettings("folder", "digits", settings={"path": "inbox"}), "the path 'inbox' is relative"),
        (SourceSettings("mqtt", "digits", settings={"topic": "a", "broker": {}}), "missing key `host`"),
    ],
)
def test_source_that_can_not_be_is_said_at_the_start(device: Device, source: SourceSettings, words: str) -> None:
    with pytest.raises(ConfigurationError, match="sources") as refused:
        SourceRunner([source], device.receiver, HOST)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('kind = "mqtt"\ntask = "other"', "'other' is none of the tasks"),
        ('kind = "mqtt"\ntask = "digits"\ninputs = ["temperature"]', "Expected a path to one value"),
    ],
)
def test_sources_of_a_configuration_are_checked_when_it_is_read(tmp_path: Path, lines: str, words: str) -> None:
    shipped = (Path(__file__).parents[2] / "systemd/agent.toml").read_text()
    (tmp_path / "agent.toml").write_text(f"{shipped}\n[[sources]]\n{lines}\n")
    with pytest.raises(ConfigurationError, match=words):
        load_configuration(tmp_path / "agent.toml")


async def test_python_program_hands_over_arrays_and_hears_why_one_is_refused(tmp_path: Path, device: Device) -> None:
    socket = SampleSocket(
        tmp_path / "samples.sock",
        device.receiver,
        samples=SampleCommands(device.intake.tasks, device.store, device.intake.describe, lambda _: None),
        train=lambda: None,
        status=lambda: STATUS,
        predict=no_prediction,
    )

    def program() -> None:
        with AgentClient(tmp_path / "samples.sock") as agent:
            agent.send("digits", np.array([0.0, 1.0], np.float32), label=np.int64(2))
            with pytest.raises(SampleRefusedError, match="input 1 is 7; digits takes -1 to 1"):
                agent.send("digits", [0, 7], label=1)
            agent.correct("digits", 1, inputs=[0.0, 1.0])
            with pytest.raises(SampleRefusedError, match="no such sample any more"):
                agent.correct("digits", 1, sample=1)
            assert agent.status()["device"] == "pi"

    async with asyncio.timeout(DEADLINE_SECONDS):
        serving = asyncio.create_task(socket.serve())
        await until((tmp_path / "samples.sock").exists)
        await asyncio.to_thread(program)
        serving.cancel()
    assert device.labels() == [1]
    assert (socket.tally.status.taken, socket.tally.status.refused) == (1, {"outside_schema": 1})
