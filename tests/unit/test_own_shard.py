"""Where a device is outlives its process, and what waits keeps its bytes and counts once, wherever it is sent."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edge_agent.core.outbox import OutboxRow, SpooledPayload
from edge_agent.core.shard_choice import Place
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.postbox import Postbox
from edge_agent.shell.storage.counters import Counters
from edge_agent.shell.storage.device_database import DeviceDatabase, SpooledRound
from edge_agent.shell.storage.own_shard import TABLE, OwnShard
from fleet_protocol import topics
from fleet_protocol.envelope import digest, read_envelope
from fleet_protocol.keys import SigningKey, write_verify_key
from fleet_protocol.kinds import UPDATE, Outcome, Receipt
from fleet_protocol.limits import MAX_BOOT, MAX_UPDATE_BYTES
from fleet_protocol.moved_message import MovedMessage, read_moved

KEY = SigningKey(bytes(range(32)))


class Device:
    """A database that is opened again and again, and who signs by it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.start()

    def start(self, shard: str = "0") -> None:
        self.database = DeviceDatabase(self.path)
        self.identity = Identity("home", shard, "pi", KEY, write_verify_key(KEY.verify_key))
        self.identity.move(self.database.own_shard.begin(shard))
        self.postbox = Postbox(self.database, self.identity.sign_row, publish=None)

    def restart(self, shard: str = "0") -> None:
        self.database.close()
        self.start(shard)

    def move(self, shard: str) -> None:
        self.identity.move(self.database.own_shard.move(shard))

    def spool(self) -> OutboxRow:
        spooled = SpooledPayload(*self.identity.address(UPDATE), b"payload")
        finished = SpooledRound("digits", "0f" * 32, 7, 40, (spooled,), b"residual")
        (row,) = self.database.spool(finished, self.identity.sign_row)
        return row

    def sent(self, number: int) -> bytes:
        return self.identity.addressed(self.postbox._delivery.envelope(number))


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path / "agent.db")
    yield device
    device.database.close()


def test_device_begins_where_it_was_when_it_ended(device: Device):
    assert device.identity.up_topic == topics.up("home", "0", "pi")
    device.move("1")
    assert device.identity.up_topic == topics.up("home", "1", "pi")
    for _ in range(2):
        device.restart()
        assert device.identity.shard == "1"
        assert device.database.own_shard.came_from == "0", "until its presence there is taken back"
    device.database.own_shard.forget_came_from()
    device.restart()
    assert (device.identity.shard, device.database.own_shard.came_from) == ("1", "")


def test_device_that_has_moved_enrols_anew(device: Device):
    device.database.set_enrolled(True)
    device.restart()
    assert device.database.is_enrolled()
    device.move("1")
    assert not device.database.is_enrolled()


def test_device_that_has_moved_is_at_another_boot_number_than_a_last_will_of_before(device: Device):
    before = device.database.boot
    device.move("1")
    assert device.database.boot == before + 1
    device.restart()
    assert device.database.boot == before + 2
    device.database.continue_boots(MAX_BOOT)
    device.move("0")
    assert device.database.boot == MAX_BOOT


def test_what_waits_keeps_its_bytes_over_moves_and_restarts(device: Device):
    row = device.spool()
    before = device.sent(row.sequence)
    assert digest(before) == row.digest
    for shard in ("1", "2"):
        device.move(shard)
        for _ in range(2):
            assert read_moved(device.sent(row.sequence)) == MovedMessage("0", before)
            device.restart()
    device.move("0")
    assert device.sent(row.sequence) == before


def test_what_is_spooled_beside_it_is_signed_likewise_and_once_nothing_waits_the_next_move_ends_that(device: Device):
    first = device.spool()
    device.move("1")
    second = device.spool()
    assert read_moved(device.sent(second.sequence)).shard == "0"
    for row in (first, second):
        assert device.postbox.receive(Receipt(row.digest, Outcome.ACCEPTED, "", "", row.sequence, 1))
    device.move("2")
    third = device.spool()
    envelope = read_envelope(device.sent(third.sequence), MAX_UPDATE_BYTES)
    envelope.verify(KEY.verify_key, topics.up("home", "2", "pi"))


def test_another_shard_in_agent_toml_begins_there_and_what_waits_is_sent_there(device: Device):
    row = device.spool()
    before = device.sent(row.sequence)
    device.database.set_enrolled(True)
    device.move("1")
    device.restart("north")
    assert device.identity.shard == "north"
    assert not device.database.is_enrolled()
    assert read_moved(device.sent(row.sequence)) == MovedMessage("0", before)
    device.restart("north")
    assert device.identity.shard == "north"
    device.move("1")
    device.restart("north")
    assert device.identity.shard == "1", "a manifest has led it on from there"


def test_card_that_is_full_at_the_start_holds_nobody_up(device: Device, monkeypatch):
    row = device.spool()
    before = device.sent(row.sequence)

    def refuse(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as full:
        full.setattr(OwnShard, "_write", refuse)
        device.restart("north")
        assert device.identity.shard == "north"
        assert read_moved(device.sent(row.sequence)) == MovedMessage("0", before)
    device.restart("0")
    assert device.sent(row.sequence) == before
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as empty, monkeypatch.context() as full:
        full.setattr(OwnShard, "_write", refuse)
        empty.execute(TABLE)
        assert OwnShard(empty, Counters(empty)).begin("north") == Place("north", "north")


def test_row_that_the_card_has_damaged_begins_where_agent_toml_says(device: Device, caplog):
    device.move("1")
    device.database.close()
    with closing(sqlite3.connect(device.path)) as connection, connection:
        connection.execute("UPDATE own_shard SET shard = 'x'")
    device.start()
    assert device.identity.shard == "0"
    assert "row_set_aside table=own_shard" in caplog.text


def test_file_of_an_earlier_layout_is_where_agent_toml_says(device: Device):
    row = device.spool()
    before = device.sent(row.sequence)
    device.database.close()
    with closing(sqlite3.connect(device.path)) as connection, connection:
        connection.execute("DROP TABLE own_shard")
        connection.execute("DELETE FROM seals WHERE name = 'own_shard'")
        connection.execute("PRAGMA user_version = 11")
    device.start()
    assert device.database.own_shard.begin("0") == Place("0", "0")
    assert device.sent(row.sequence) == before
