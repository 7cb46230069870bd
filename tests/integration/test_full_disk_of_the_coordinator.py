"""On a full disk the coordinator says that it is full, and what is stored can be listed."""

from pathlib import Path

import pytest
from sqlalchemy import text

from broker_coordinator.storage import database as storage
from broker_coordinator.storage.database import DiskFullError, open_database, writing
from broker_coordinator.storage.journal import Journal
from fleet_protocol.errors import ConfigurationError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "coordinator.db"
    Journal.open(path).close()
    return path


def test_full_disk_is_said_with_what_is_free_and_what_to_do(path):
    engine = open_database(path)
    with (
        pytest.raises(DiskFullError, match=r"full; the disk is full: \d+ KiB of \d+ KiB are free at .*du -xh"),
        writing(engine) as connection,
    ):
        connection.execute(text("PRAGMA max_page_count = 1"))
        connection.execute(text("CREATE TABLE filling (content BLOB)"))
        connection.execute(text("INSERT INTO filling VALUES (zeroblob(10000000))"))
    engine.dispose()


def test_what_is_stored_is_listed_on_a_full_disk_and_nothing_is_written(path, monkeypatch):
    def full(_connection: object) -> None:
        raise DiskFullError("the disk is full")

    monkeypatch.setattr(storage, "create_schema", full)
    monkeypatch.setattr(storage, "free_bytes", lambda _path: 0)
    with pytest.raises(ConfigurationError, match="the disk is full"):
        Journal.open(path)
    with Journal.open_to_look(path) as journal:
        assert journal.overview.set_aside_count("digits") == 0
        assert [file.name for file in path.parent.iterdir()] == [path.name]
