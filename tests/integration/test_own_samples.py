"""`edge-agent samples`: the owner sees, takes away, corrects and deletes what is stored, with or without an agent."""

import asyncio
import json
import time
from pathlib import Path

import numpy as np
import pytest

from bundle_runtime.sample_file import read_samples
from edge_agent.cli import main
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.sources.intake import SampleIntake
from edge_agent.sources.reading_receiver import ReadingReceiver
from edge_agent.sources.sample_commands import SampleCommands
from edge_agent.sources.unix_socket import SampleSocket, Status
from fleet_protocol.bundle import parse_description
from fleet_protocol.sample_line import Sample

TREE = Path(__file__).parents[2]
DIGITS = parse_description((TREE / "models/digits/bundle/task.json").read_bytes())
RUNNING = Status("pi", "sleeping", False, 1, {}, {}, {}, 0, 0, 0, 0, None, {}, [], dropped={"digits": {"newest": 31}})
PIXELS = np.linspace(0, 1, 64, dtype=np.float32)


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    file = tmp_path / "agent.toml"
    file.write_text(
        f"""
fleet = "home"
device = "pi"
key_file = "key"
coordinator_key = "{"00" * 32}"
state_folder = "state"
sample_socket = "samples.sock"
broker = {{ host = "localhost" }}
tasks = [{{ name = "digits" }}, {{ name = "faces" }}]
store = {{ maximum_samples = 10 }}
"""
    )
    (tmp_path / "state").mkdir()
    store = SampleStore(tmp_path / "state/samples.db", 10)
    for label in range(4):
        store.add("digits", np.roll(PIXELS, label).tobytes(), label)
    store.add("faces", np.array([0.5, np.nan], np.float32).tobytes(), np.array([0.25], np.float32).tobytes())
    store.close()
    return file


def run(configuration: Path, *arguments: object) -> None:
    main(["--config", str(configuration), "samples", *map(str, arguments)])


def refused(capsys: pytest.CaptureFixture[str], configuration: Path, *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        run(configuration, *arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_stats_say_what_is_stored_and_what_the_limits_are(configuration, capsys):
    run(configuration, "stats")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ("digits: 4 of at most 10 samples, 0.0 of at most 256 MiB; beyond that, kept are: newest")
    assert "  of each class: 0: 1, 1: 1, 2: 1, 3: 1" in lines
    run(configuration, "stats", "--json")
    found = json.loads(capsys.readouterr().out)
    assert (found["digits"]["samples"], found["digits"]["bytes"], found["faces"]["samples"]) == (4, 4 * 256, 1)
    assert (found["digits"]["first"], found["digits"]["last"]) == (1, 4)


def test_stats_say_what_retention_has_dropped(configuration, tmp_path, capsys):
    store = SampleStore(tmp_path / "state/samples.db", 2)
    store.add("digits", PIXELS.tobytes(), 0)
    store.close()
    run(configuration, "stats")
    said = capsys.readouterr().out
    assert "  3 made room or were not kept (3 by 'newest')\nfaces: 1 of at most 10 samples" in said
    run(configuration, "stats", "--json")
    found = json.loads(capsys.readouterr().out)
    assert [found[task]["dropped"] for task in ("digits", "faces")] == [{"newest": 3}, {}]


def test_exported_file_is_read_where_files_of_samples_are_and_by_its_owner_alone(configuration, tmp_path, capsys):
    run(configuration, "export", tmp_path / "mine.csv")
    assert capsys.readouterr().out == f"wrote 4 samples to {tmp_path / 'mine.csv'}\n"
    assert (tmp_path / "mine.csv").stat().st_mode & 0o777 == 0o600
    read = read_samples(tmp_path / "mine.csv", DIGITS)
    assert read.labels.tolist() == [0, 1, 2, 3]
    assert np.array_equal(read.inputs.reshape(4, 64)[3], np.roll(PIXELS, 3)), "to the last bit"


def test_missing_values_are_empty_and_numbers_stand_in_front(configuration, tmp_path):
    run(configuration, "export", tmp_path / "faces.csv", "--task", "faces", "--numbers")
    assert (tmp_path / "faces.csv").read_text() == "sample,input_0,input_1,label_0\n5,0.5,,0.25\n"


def test_export_overwrites_nothing_and_says_why_it_can_not_write(configuration, tmp_path, capsys):
    (tmp_path / "mine.csv").write_text("precious")
    assert "is there already" in refused(capsys, configuration, "export", tmp_path / "mine.csv")
    assert (tmp_path / "mine.csv").read_text() == "precious"
    assert "choose another name" in refused(capsys, configuration, "export", tmp_path / "no/folder.csv")
    assert "agent.toml lists digits, faces" in refused(
        capsys, configuration, "export", tmp_path / "a.csv", "--task", "other"
    )


def test_forgotten_without_an_agent_samples_are_gone_and_others_stay(configuration, capsys):
    run(configuration, "forget", "--yes", "--task", "digits", "--sample", "2", "--sample", "77")
    assert capsys.readouterr().out == "forgotten: 1 samples\n"
    run(configuration, "forget", "--yes")
    assert capsys.readouterr().out == "forgotten: 4 samples\n"
    assert "no sample of digits is stored" in refused(capsys, configuration, "export", "mine.csv")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["forget"], "--yes"),
        (["forget", "--yes", "--sample", "1"], "--sample needs --task"),
        (["forget", "--yes", "--sample", "zero"], "not a whole number"),
        (["correct", "1", "four"], "is no JSON"),
        (["correct", "1", "4"], "start the agent: systemctl start edge-agent"),
        (["correct", "-1", "4"], "edge-agent"),
        ([], "WHAT"),
    ],
)
def test_command_that_can_not_be_done_is_one_line_and_changes_nothing(configuration, capsys, arguments, words):
    said = refused(capsys, configuration, *arguments)
    assert words in said
    assert len(said.splitlines()) == 1
    run(configuration, "stats", "--json")
    assert json.loads(capsys.readouterr().out)["digits"]["samples"] == 4


def test_before_the_agent_has_ever_run_there_is_nothing(configuration, tmp_path, capsys):
    (tmp_path / "state/samples.db").unlink()
    assert "there is no sample store yet" in refused(capsys, configuration, "stats")
    run(configuration, "forget", "--yes")
    assert capsys.readouterr().out == "forgotten: 0 samples\n"


def test_export_says_of_samples_that_wait_for_their_schema(configuration, tmp_path, capsys):
    store = SampleStore(tmp_path / "state/samples.db", 10)
    store.forget("digits")
    store.add_unjudged(Sample("digits", [0.5], 1))
    store.close()
    said = refused(capsys, configuration, "export", tmp_path / "mine.csv")
    assert "no sample of digits is stored; 1 wait for the task's schema" in said


async def test_running_agent_corrects_and_forgets_and_says_why_not(configuration, tmp_path, capsys):
    store, changed = SampleStore(tmp_path / "state/samples.db", 10), []
    tasks = frozenset({"digits", "faces"})
    intake = SampleIntake(tasks, store.add, store.add_unjudged, lambda _: DIGITS, lambda _: None)
    gate = SampleSocket(
        tmp_path / "samples.sock",
        ReadingReceiver(intake, time.time),
        samples=SampleCommands(tasks, store, intake.describe, changed.append),
        train=lambda: None,
        status=lambda: RUNNING,
        predict=lambda *_: None,
    )
    serving = asyncio.create_task(gate.serve())
    while not (tmp_path / "samples.sock").exists():  # noqa: ASYNC110 - the gate announces nothing else
        await asyncio.sleep(0)
    await asyncio.to_thread(run, configuration, "stats", "--json")
    assert json.loads(capsys.readouterr().out)["digits"]["dropped"] == {"newest": 31}, "what it has not written yet"
    await asyncio.to_thread(run, configuration, "correct", 2, 9)
    assert "6 from now on" in capsys.readouterr().out
    assert "label is 12" in await asyncio.to_thread(refused, capsys, configuration, "correct", 1, 12)
    await asyncio.to_thread(run, configuration, "forget", "--yes")
    assert capsys.readouterr().out == "forgotten: 5 samples\n"
    assert changed == ["digits", "digits", "faces"]
    assert store.count("digits") == store.count("faces") == 0
    serving.cancel()
    store.close()
