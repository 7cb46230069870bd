"""Named readings reach the sample store through the socket, folders and a restart; tables are prepared alike."""

import asyncio
import json
import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edge_agent.client import AgentClient, SampleRefusedError
from edge_agent.preparation.refusal import ReadingRefusedError
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.source_runner import SourceRunner
from edge_agent.shell.storage.series_memory import SAVE_SECONDS, SeriesMemory
from edge_agent.sources.intake import SampleIntake
from edge_agent.sources.prediction_command import CannotPredictError, Predicted
from edge_agent.sources.reading_receiver import OwnSeries, ReadingReceiver
from edge_agent.sources.readings import ReadingForm
from edge_agent.sources.sample_commands import SampleCommands
from edge_agent.sources.settings import SourceSettings
from edge_agent.sources.source import SourceHost
from edge_agent.sources.unix_socket import SampleSocket
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.sample_line import Sample
from fleet_protocol.task_description import TaskDescription
from workbench.data.named_readings import prepare_table, write_samples
from workbench.data.samples import read_samples
from workbench.recipe_folder import find_bundle

TASK = "occupancy"
FOLDER = find_bundle(TASK)
OCCUPANCY = parse_description((FOLDER / DESCRIPTION_FILE).read_bytes())
DEADLINE_SECONDS = 60
READINGS = [
    {"time": 60 * minute, "temperature": 20 + minute / 10, "humidity": 40, "light": 400, "carbon_dioxide": 600}
    for minute in range(1, 13)
]
LABELLED = [reading | {"occupied": "on"} for reading in READINGS]


class Device:
    """A sample store behind a receiver; `now` is its clock."""

    def __init__(self, folder: Path) -> None:
        self.store = SampleStore(folder / "samples.db", 100)
        self.description: TaskDescription | None = OCCUPANCY
        self.now = 0.0
        intake = SampleIntake(
            frozenset({TASK}),
            store=self.store.add,
            store_unjudged=self.store.add_unjudged,
            describe=lambda _: self.description,
            arrived=lambda _: None,
        )
        self.receiver = ReadingReceiver(intake, lambda: self.now)
        self.socket = SampleSocket(
            folder / "samples.sock",
            self.receiver,
            samples=SampleCommands(intake.tasks, self.store, intake.describe, lambda _: None),
            train=lambda: None,
            status=lambda: pytest.fail("nobody asks"),
            predict=self._predict,
        )

    async def _predict(self, task: str, reading: bytes, own: OwnSeries | None) -> Predicted:
        """Answers with the number of inputs in place of a version."""
        try:
            sample = self.receiver.question(ReadingForm(task), json.loads(reading), own)
        except ReadingRefusedError as error:
            raise CannotPredictError(str(error)) from error
        return Predicted(task, len(sample.inputs), 0.0)

    def inputs(self) -> np.ndarray:
        with closing(sqlite3.connect(self.store.path)) as connection:
            rows = connection.execute("SELECT inputs FROM samples ORDER BY id").fetchall()
        return np.array([np.frombuffer(inputs, np.float32) for (inputs,) in rows])


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


async def with_client(device: Device, path: Path, program: Callable[[AgentClient], None]) -> None:
    def run() -> None:
        with AgentClient(path) as agent:
            program(agent)

    async with asyncio.timeout(DEADLINE_SECONDS):
        serving = asyncio.create_task(device.socket.serve())
        while not path.exists():  # noqa: ASYNC110, ASYNC240 - a socket announces nothing
            await asyncio.sleep(0.01)
        await asyncio.to_thread(run)
        serving.cancel()


def table(folder: Path, readings: list[dict[str, object]]) -> Path:
    file = folder / "room.csv"
    lines = [",".join(LABELLED[0]), *(",".join(str(value) for value in each.values()) for each in readings)]
    file.write_text("\n".join(lines))
    return file


def test_question_has_the_form_of_the_source_of_a_sample_or_of_named_readings(device: Device) -> None:
    mapped = SourceSettings("mqtt", TASK, fields={name: f"$.room.{name}" for name in READINGS[0] if name != "time"})
    for reading in READINGS[:10]:
        device.receiver.take(ReadingForm(TASK), reading)
    named = READINGS[10]
    asked = [
        device.receiver.question(mapped.form, document)
        for document in (named, {"room": named, "time": named["time"]}, {"inputs": [0.5] * 40})
    ]
    assert asked[0] == asked[1]
    assert asked[2].inputs == [0.5] * 40
    with pytest.raises(ReadingRefusedError, match="temperature is missing; the reading has warmth"):
        device.receiver.question(mapped.form, {"warmth": 21.5})


async def test_program_hands_over_named_readings_and_hears_why_one_is_refused(tmp_path: Path, device: Device) -> None:
    def program(agent: AgentClient) -> None:
        for reading in LABELLED:
            agent.send_reading(TASK, reading)
        for change, words in (
            ({"light": math.nan}, "light is nan; leave the reading out"),
            ({"light": "21,5"}, "light is '21,5'; publish a number, with a decimal point"),
            ({"light": {"value": 1, "unit": "fc"}}, "light is in 'fc'; the task takes lx"),
            ({"time": "noon"}, "time is 'noon'; give seconds or milliseconds since 1970"),
        ):
            with pytest.raises(SampleRefusedError, match=words):
                agent.send_reading(TASK, READINGS[0] | {"time": 9000} | change)
        with pytest.raises(SampleRefusedError, match="unknown task 'attic'"):
            agent.send_reading("attic", READINGS[0])
        agent.send_reading(TASK, LABELLED[0], series="attic")

    await with_client(device, tmp_path / "samples.sock", program)
    table_made = prepare_table(table(tmp_path, LABELLED), OCCUPANCY)
    assert device.inputs().tobytes() == table_made.samples.inputs.tobytes()
    assert len(table_made.samples) == 3
    assert device.socket.tally.status.taken == len(LABELLED) + 1
    assert device.socket.tally.status.refused == {
        "not_finite": 1,
        "not_a_number": 1,
        "wrong_unit": 1,
        "wrong_time": 1,
        "not_a_sample": 1,
    }
    assert set(device.receiver.status) == {TASK, f"{TASK}/attic"}


async def test_labels_that_come_an_hour_later_make_the_same_samples(tmp_path: Path, device: Device) -> None:
    def program(agent: AgentClient) -> None:
        for reading in READINGS:
            agent.send_reading(TASK, reading)
        for reading in READINGS[9:]:
            agent.send_reading(TASK, {"time": reading["time"], "occupied": True})
        with pytest.raises(SampleRefusedError, match="waits for a label"):
            agent.send_reading(TASK, {"time": 720, "occupied": True})

    await with_client(device, tmp_path / "samples.sock", program)
    made = prepare_table(table(tmp_path, LABELLED), OCCUPANCY).samples
    assert device.inputs().tobytes() == made.inputs.tobytes()
    assert device.receiver.status[TASK].waiting_for_label == 0


async def test_questions_follow_the_device_or_one_another(tmp_path: Path, device: Device) -> None:
    for reading in READINGS[:9]:
        device.receiver.take(ReadingForm(TASK), reading)

    def program(agent: AgentClient) -> None:
        assert agent.predict(TASK, READINGS[9])["version"] == 40
        own = [agent.predict(TASK, each, follows=True) for each in READINGS[:10]]
        assert [each.get("version") for each in own] == [None] * 9 + [40]
        assert own[0]["error"] == "the window has 1 of 10 readings; wait for the others"

    await with_client(device, tmp_path / "samples.sock", program)
    assert device.receiver.status[TASK].readings == 9


def test_readings_before_the_description_are_refused_and_count_from_when_it_is_here(device: Device) -> None:
    form = ReadingForm(TASK)
    device.description = None
    with pytest.raises(ReadingRefusedError, match="has not come yet; readings count from when it is here"):
        device.receiver.take(form, READINGS[0])
    device.description = OCCUPANCY
    device.receiver.take(form, READINGS[0])
    assert device.receiver.status[TASK].readings == 1


async def test_table_in_a_folder_is_read_by_the_names_of_its_columns(tmp_path: Path, device: Device) -> None:
    (inbox := tmp_path / "inbox").mkdir()
    table(inbox, [*LABELLED, LABELLED[-1]])

    async def nothing(*_: object) -> Predicted:
        raise CannotPredictError("nothing to ask")

    source = SourceSettings("folder", TASK, settings={"path": str(inbox), "scan_seconds": 0.02})
    runner = SourceRunner([source], device.receiver, SourceHost("home", "pi", nothing, nothing, lambda: b"{}"))
    async with asyncio.timeout(DEADLINE_SECONDS):
        running = asyncio.create_task(runner.run())
        while not (inbox / "taken/room.csv").exists():  # noqa: ASYNC110 - a source announces nothing
            await asyncio.sleep(0.01)
        running.cancel()
    assert len(device.inputs()) == 3
    assert (runner.status[0].taken, runner.status[0].refused) == (12, {"duplicate": 1})


def test_windows_go_on_after_a_restart(tmp_path: Path, device: Device) -> None:
    clock = [0.0]
    memory = SeriesMemory(tmp_path, lambda: clock[0])
    for reading in LABELLED[:9]:
        device.receiver.take(ReadingForm(TASK), reading)
    assert not memory.is_due()
    clock[0] = SAVE_SECONDS
    assert memory.is_due()
    memory.write(device.receiver.states)
    again = ReadingReceiver(device.receiver.intake, lambda: 0.0, memory.read())
    sample = again.take(ReadingForm(TASK), LABELLED[9])
    assert isinstance(sample, Sample)
    assert len(device.inputs()) == 1


def test_damaged_memory_of_windows_is_said_and_they_begin_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "readings.json").write_bytes(b'{"occupancy": {')
    assert SeriesMemory(tmp_path, lambda: 0.0).read() == {}
    assert "event=series_forgotten" in caplog.text


def test_table_is_simulated_and_exported_as_samples(tmp_path: Path) -> None:
    file = table(tmp_path, [*LABELLED, LABELLED[0] | {"light": "dark"}])
    renamed = tmp_path / "renamed.csv"
    renamed.write_text(file.read_text().replace("carbon_dioxide", "CO2").replace("time", "date"))
    said = write_samples(renamed, FOLDER, tmp_path / "room.npz", {"carbon_dioxide": "CO2", "time": "date"})
    assert "3 samples of occupancy; left out: 1 not_a_number, the first row 12: not_a_number: light is 'dark'" in said
    direct, written = read_samples(str(file), OCCUPANCY), read_samples(str(tmp_path / "room.npz"), OCCUPANCY)
    assert direct.inputs.tobytes() == written.inputs.tobytes()
    assert direct.labels.tolist() == written.labels.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("task", "columns", "words"),
    [
        (TASK, {}, "they make no sample of occupancy: row 0: field_missing: carbon_dioxide is missing"),
        (TASK, {"co2": "CO2"}, "occupancy has no field 'co2'; its readings have temperature"),
        ("digits", {}, "digits takes no named readings"),
    ],
)
def test_table_that_makes_no_sample_says_why(tmp_path: Path, task: str, columns: dict[str, str], words: str) -> None:
    file = table(tmp_path, LABELLED)
    file.write_text(file.read_text().replace("carbon_dioxide", "CO2"))
    with pytest.raises(ConfigurationError, match=words):
        write_samples(file, find_bundle(task), tmp_path / "room.npz", columns)
