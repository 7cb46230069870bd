"""A full card: the agent makes room from what it can fetch again, or says in one line what to do."""

import sqlite3

import pytest

from edge_agent.shell.state_folder import open_state
from edge_agent.shell.storage import device_database
from fleet_protocol.errors import ConfigurationError
from tests.integration.test_receipt_numbers import configuration as agent_configuration

configuration = agent_configuration


@pytest.fixture
def card(configuration, monkeypatch):
    """A card on which agent.db can be opened once two of the folder's files are gone."""
    folder = configuration.state_folder
    (folder / "blobs").mkdir(parents=True)
    full_with: list[int] = []
    connect = sqlite3.connect

    def connect_if_there_is_room(path, **named):
        if getattr(path, "name", "") == "agent.db" and len(files(folder)) > full_with[0]:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorname = "SQLITE_FULL"
            raise error
        return connect(path, **named)

    monkeypatch.setattr(device_database.sqlite3, "connect", connect_if_there_is_room)
    return folder, full_with


def files(folder) -> list[str]:
    return [file.name for file in folder.rglob("*") if file.is_file()]


def test_full_card_gets_room_from_what_costs_least(configuration, card, caplog):
    folder, full_with = card
    for name in ("blobs/a", "blobs/b.part", "samples.db.damaged", "mine"):
        (folder / name).write_bytes(bytes(100))
    full_with.append(2)
    database, samples, _ = open_state(configuration)
    database.close()
    samples.close()
    assert {"a", "mine"} <= set(files(folder))
    assert not {"b.part", "samples.db.damaged"} & set(files(folder))
    assert caplog.text.count("event=room_made") == 2


def test_on_a_full_card_what_cannot_be_deleted_is_passed_over(configuration, card, caplog):
    folder, full_with = card
    (folder / "samples.db.damaged").mkdir()
    (folder / "blobs" / "a").write_bytes(bytes(100))
    full_with.append(0)
    database, samples, _ = open_state(configuration)
    database.close()
    samples.close()
    assert "a" not in files(folder)
    assert caplog.text.count("event=room_made") == 1


def test_full_card_without_anything_expendable_is_said_in_one_line(configuration, card):
    folder, full_with = card
    (folder / "mine").write_bytes(b"")
    full_with.append(0)
    with pytest.raises(ConfigurationError, match=r"the disk is full: \d+ KiB of \d+ KiB are free") as caught:
        open_state(configuration)
    assert "may write" not in str(caught.value)
    assert files(folder) == ["mine"]
