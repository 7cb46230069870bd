"""A reset forgets what was learned, keeps the samples unless asked, and leaves a running agent alone."""

from pathlib import Path

import pytest

from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.verbs.reset import reset_device
from fleet_protocol.errors import ConfigurationError

FIRST_BOOT = 7


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A device's state, as an agent leaves it that was killed: with write-ahead logs."""
    DeviceDatabase(tmp_path / "agent.db", first_boot=FIRST_BOOT).close()
    store = SampleStore(tmp_path / "samples.db", 100)
    store.add("digits", bytes(8), 1)
    store.close()
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "ab").touch()
    (tmp_path / "enrolled-as").write_text("kitchen ab\n")
    return tmp_path


def left(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def test_what_was_learned_goes_and_samples_and_name_stay(folder):
    assert reset_device(folder, with_samples=False) == ["agent.db", "blobs"]
    assert left(folder) == {"samples.db", "enrolled-as"}
    store = SampleStore(folder / "samples.db", 100)
    assert store.count("digits") == 1
    store.close()
    database = DeviceDatabase(folder / "agent.db", first_boot=1000)
    assert (database.boot, database.is_enrolled()) == (1000, False)
    database.close()


def test_samples_go_where_asked_and_a_second_reset_finds_nothing(folder):
    assert reset_device(folder, with_samples=True) == ["agent.db", "samples.db", "blobs"]
    assert left(folder) == {"enrolled-as"}
    assert reset_device(folder, with_samples=True) == []


def test_running_agent_keeps_everything(folder):
    running = DeviceDatabase(folder / "agent.db")
    before = left(folder)
    with pytest.raises(ConfigurationError, match="locked; stop the agent"):
        reset_device(folder, with_samples=True)
    running.set_enrolled(True)
    assert left(folder) >= before - {"agent.db-wal", "agent.db-shm"}
    assert running.is_enrolled()
    running.close()


def test_log_of_a_killed_agent_is_not_found_by_the_next_database(folder):
    killed = DeviceDatabase(folder / "agent.db")
    killed.set_enrolled(True)
    log = (folder / "agent.db-wal").read_bytes()
    killed.close()
    (folder / "agent.db-wal").write_bytes(log)
    reset_device(folder, with_samples=False)
    assert "agent.db-wal" not in left(folder)


def test_damaged_database_is_forgotten_too(folder):
    (folder / "agent.db").write_bytes(b"nothing of a database" * 1000)
    (folder / "agent.db-wal").write_bytes(b"nor of its log")
    assert reset_device(folder, with_samples=False) == ["agent.db", "blobs"]
    assert left(folder) == {"samples.db", "enrolled-as"}
