"""Moving to another shard: on the disk first, presence taken back behind it, and a full card moves nobody."""

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.core.shard_choice import FIRST_STAY_SECONDS
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.link import LinkDownError, LinkLeftError
from edge_agent.shell.connection.shard_keeper import RETRY_SECONDS, ShardKeeper
from edge_agent.shell.storage.device_database import DeviceDatabase
from fleet_protocol import topics
from fleet_protocol.keys import SigningKey, write_verify_key
from fleet_protocol.shards import shard_of
from tests.support.jumping_clock import run

SHARDS = ("0", "1")
NAME = next(name for name in ("pi-0", "pi-1", "pi-2", "pi-3") if shard_of(name, SHARDS) == "1")
KEY = SigningKey(bytes(range(32)))


class Device:
    """A real database, identity and keeper; the link notes what is retained, or is down."""

    def __init__(self, folder: Path) -> None:
        self.database = DeviceDatabase(folder / "agent.db")
        self.identity = Identity("home", "0", NAME, KEY, write_verify_key(KEY.verify_key))
        self.identity.move(self.database.own_shard.begin("0"))
        self.published: list[tuple[str, bytes, bool]] = []
        self.moved: list[str] = []
        self.is_down = False
        self.keeper = ShardKeeper(
            self.identity, self.database.own_shard, self, moved=lambda: self.moved.append(self.identity.shard)
        )

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        if self.is_down:
            raise LinkDownError("no connection")
        self.published.append((topic, payload, retain))


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path)
    yield device
    device.database.close()


def test_device_moves_and_takes_its_presence_back_from_its_next_connection(device: Device):
    async def scenario() -> None:
        device.keeper.hear(SHARDS)
        with pytest.raises(LinkLeftError, match="moved from shard 0 to 1"):
            await device.keeper.keep()
        assert device.moved == ["1"]
        assert not device.published, "nobody publishes there any more once this connection has ended"
        device.is_down = True
        with pytest.raises(LinkDownError):
            await device.keeper.keep()
        device.is_down = False
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await device.keeper.keep()
        assert device.published == [(topics.state("home", "0", NAME), b"", True)], "once"

    run(scenario())


def test_manifest_that_comes_while_a_connection_lasts_moves_it_and_another_one_waits(device: Device):
    async def scenario() -> None:
        clock = asyncio.get_running_loop().time
        keeping = asyncio.create_task(device.keeper.keep())
        await asyncio.sleep(5.0)
        device.keeper.hear([])
        await asyncio.sleep(5.0)
        assert not keeping.done()
        device.keeper.hear(SHARDS)
        with pytest.raises(LinkLeftError):
            await keeping
        before = clock()
        keeping = asyncio.create_task(device.keeper.keep())
        await asyncio.sleep(1.0)
        device.keeper.hear(["0"])
        with pytest.raises(LinkLeftError, match="moved from shard 1 to 0"):
            await keeping
        assert clock() == pytest.approx(before + FIRST_STAY_SECONDS)

    run(scenario())


def test_card_that_does_not_take_it_moves_nobody_until_it_does(device: Device, caplog, monkeypatch):
    move, full = device.database.own_shard.move, [True]

    def move_if_there_is_room(shard: str):
        if full:
            raise sqlite3.OperationalError("database or disk is full")
        return move(shard)

    monkeypatch.setattr(device.database.own_shard, "move", move_if_there_is_room)

    async def scenario() -> None:
        device.keeper.hear(SHARDS)
        keeping = asyncio.create_task(device.keeper.keep())
        await asyncio.sleep(RETRY_SECONDS / 2)
        assert (device.identity.shard, device.moved) == ("0", [])
        full.clear()
        with pytest.raises(LinkLeftError):
            await keeping
        assert device.identity.shard == "1"

    run(scenario())
    assert caplog.text.count("event=shard_not_stored shard=1") == 1
