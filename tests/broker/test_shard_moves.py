"""The shipped agent on a real Mosquitto moves to its shard, killed or not, and comes back: nothing lost or twice."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import aiomqtt
import pytest

from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal_reader import JournalReader
from fleet_protocol import topics
from fleet_protocol.keys import SigningKey
from fleet_protocol.kinds import PresenceState
from fleet_protocol.shards import shard_of
from tests.support.agent import AgentProcess, copy_digits_bundle
from tests.support.broker import Broker
from tests.support.fleet import FLEET
from tests.support.sharded_fleet import served
from tests.support.waiting import until

SHARDS = ("0", "1")
NAME = next(name for name in ("pi-0", "pi-1", "pi-2", "pi-3") if shard_of(name, SHARDS) == "1")
QUIET_SECONDS = 0.5
"""After the last retained message."""


class Fleet:
    """One agent, and coordinators whose buffer never fills."""

    def __init__(self, folder: Path, broker: Broker) -> None:
        self.key, self.broker, self.database = SigningKey.generate(), broker, folder / "coordinator.db"
        self.bundle = copy_digits_bundle(folder / "bundle", buffer_size=1000)
        self.agent = AgentProcess(folder / "agent", NAME, broker, self.key.verify_key)

    def served(self, *own: str, shards: tuple[str, ...] = SHARDS) -> contextlib.AbstractContextManager[None]:
        signers = [MessageSigner(self.key, FLEET, shard, shards) for shard in own]
        return served(self.broker, self.database, self.bundle, signers)

    def journalled(self) -> list[int]:
        with JournalReader.open(self.database) as journal:
            return [row.sequence for row in journal.updates()]

    def presence(self) -> PresenceState:
        with JournalReader.open(self.database) as journal:
            (device,) = DeviceRegistry(journal.engine).devices()
        return device.presence

    def retained(self) -> set[str]:
        """The shards under which the broker retains the agent's presence."""
        return asyncio.run(self._retained())

    async def _retained(self) -> set[str]:
        found: set[str] = set()
        async with aiomqtt.Client(self.broker.host, self.broker.port) as client:
            await client.subscribe(topics.state(FLEET, "+", NAME), qos=1)
            with contextlib.suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(QUIET_SECONDS):
                        message = await anext(client.messages)
                    found.add(topics.shard_in(message.topic.value))
        return found

    def has_moved(self, now: str, times: int = 1) -> bool:
        return self.agent.log().count(f"now={now}") == times

    def train(self, first: int = 0) -> None:
        """A round, whose update waits for its receipt or has it."""
        spooled = self.agent.log().count("round_spooled")
        self.agent.feed(4, first)
        until(lambda: self.agent.log().count("round_spooled") > spooled, "it has trained")


@pytest.fixture
def fleet(tmp_path: Path, broker: Broker) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path, broker)
    yield fleet
    fleet.agent.kill()


def accepted(fleet: Fleet, count: int) -> Callable[[], bool]:
    return lambda: fleet.agent.status().get("waiting_updates") == 0 and len(fleet.journalled()) == count


def test_agent_moves_to_its_shard_and_no_other_shows_it_as_online(fleet: Fleet) -> None:
    with fleet.served(*SHARDS):
        fleet.agent.start()
        until(lambda: fleet.has_moved("1"), "it moves")
        until(lambda: fleet.retained() == {"1"}, "its presence is retained in its shard alone")
        fleet.train()
        until(accepted(fleet, 1), "its update is taken")
        assert fleet.presence() is PresenceState.ONLINE
        fleet.agent.kill()
        until(lambda: fleet.presence() is PresenceState.OFFLINE, "its last will is in its shard")
        assert fleet.retained() == {"1"}
        fleet.agent.start()
        fleet.train(4)
        until(accepted(fleet, 2), "it begins there")
        assert fleet.has_moved("1"), "it has moved once"


def test_update_that_waits_is_taken_once_by_the_shard_that_the_agent_comes_to(fleet: Fleet) -> None:
    with fleet.served("0", shards=()):
        fleet.agent.start()
        fleet.train()
        until(accepted(fleet, 1), "it learns in the shard where it began")
    fleet.train(4)
    with fleet.served("1"):
        fleet.agent.kill()
        fleet.agent.start()  # asks what is retained
        until(lambda: fleet.has_moved("1"), "it moves")
        until(accepted(fleet, 2), "its new shard takes what waited")
        with fleet.served("0"):  # for which the broker has kept the same update
            fleet.train(8)
            until(accepted(fleet, 3), "and goes on")
            until(lambda: fleet.retained() == {"1"}, "all is read")
            assert fleet.journalled() == [1, 2, 3]


def test_agent_that_is_killed_while_it_moves_goes_on_where_it_went(fleet: Fleet) -> None:
    with fleet.served("0", shards=()):
        fleet.agent.start()
        fleet.train()
        until(accepted(fleet, 1), "it learns in the shard where it began")
    fleet.train(4)
    with fleet.served(*SHARDS):
        fleet.agent.kill()
        fleet.agent.start()
        until(lambda: "event=shard_changed" in fleet.agent.log(), "it is on its way")
        fleet.agent.kill()
        for _ in range(3):
            fleet.agent.start()
            fleet.agent.kill()
        fleet.agent.start()
        until(accepted(fleet, 2), "what waited is taken once")
        until(lambda: fleet.retained() == {"1"}, "nothing is left behind")
        assert fleet.has_moved("1")
    ledger = fleet.agent.log()
    assert "sequence_reused" not in ledger
    assert fleet.journalled() == [1, 2]


def test_agent_comes_back_where_its_shard_is_taken_away(fleet: Fleet) -> None:
    with fleet.served(*SHARDS):
        fleet.agent.start()
        until(lambda: fleet.has_moved("1"), "it moves")
        fleet.train()
        until(accepted(fleet, 1), "its update is taken")
    fleet.train(4)
    with fleet.served("0", shards=("0",)):
        fleet.agent.kill()
        fleet.agent.start()
        until(lambda: fleet.has_moved("0"), "it comes back")
        until(accepted(fleet, 2), "with what waited")
        until(lambda: fleet.retained() == {"0"}, "and is nowhere else")


def test_agent_whose_shard_nobody_serves_finds_its_own(fleet: Fleet) -> None:
    configuration = fleet.agent.configuration
    configuration.write_text(f'shard = "nowhere"\n{configuration.read_text()}')
    with fleet.served(*SHARDS):
        fleet.agent.start()
        until(lambda: fleet.has_moved("1"), "it moves")
        fleet.train()
        until(accepted(fleet, 1), "its update is taken")
        assert fleet.agent.status()["shard"] == "1"
        assert fleet.retained() == {"1"}
