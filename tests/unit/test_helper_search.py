"""Which helper a device's round comes to, with the relay and helpers in memory."""

import asyncio
from typing import Any, cast

import pytest

from edge_agent.core.left_out_helpers import LeftOutHelpers
from edge_agent.core.split_settings import SplitSettings
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.link import Link
from edge_agent.shell.splitting.helped_round import HelpedRound, NoHelperError
from fleet_protocol.keys import write_verify_key
from tests.support.sessions_world import COORDINATOR, FLEET, SHARD, WANTED, Packet, World


class Search:
    """A round of the world's first device. What it publishes is delivered at once."""

    def __init__(self, *trusted: str) -> None:
        self.world, self.left_out = World(), LeftOutHelpers()
        self.world.settle(1)
        device = self.world.devices[0]
        self._identity = Identity(FLEET, SHARD, device.name, device.key, write_verify_key(COORDINATOR.verify_key))
        self._identity.boot = 1
        keys = {each.name: write_verify_key(each.key.verify_key) for each in self.world.helpers}
        settings = SplitSettings(trusted_helpers=[keys[name] for name in trusted])
        self.connected = True
        self.round = HelpedRound(self._identity, cast("Link", cast("Any", self)), WANTED, settings, self.left_out)

    def send_off(self, topic: str, data: bytes, *, at_least_once: bool) -> None:
        """As `Link.send_off`."""
        self.world.wire.append(Packet(topic, data))
        asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        while self.world.wire:
            packet = self.world.wire.pop(0)
            if packet.topic == self._identity.relayed_topic:
                self.round.relayed(packet.data)
            else:
                self.world.deliver(packet)
            if not self.world.wire:
                self.world.turn()

    def blame(self, *helpers: str) -> None:
        """Leave them out."""
        for helper in helpers:
            self.left_out.blame(helper, "it answers wrong", asyncio.get_running_loop().time())


async def test_relay_names_the_first_of_helpers_that_are_alike() -> None:
    search = Search()
    await search.round.open()
    assert search.round.helper == "gateway"
    await search.round.close()


async def test_helper_that_is_left_out_is_not_asked() -> None:
    search = Search()
    search.blame("gateway")
    await search.round.open()
    assert search.round.helper == "tower"
    await search.round.close()


async def test_device_comes_to_the_helper_that_its_owner_trusts_though_the_relay_names_another_first() -> None:
    search = Search("tower")
    await search.round.open()
    assert search.round.helper == "tower"
    assert "not one of trusted_helpers" in search.left_out.words(asyncio.get_running_loop().time())
    await search.round.close()


async def test_round_is_put_off_at_once_and_says_why_where_all_helpers_are_left_out() -> None:
    search = Search()
    search.blame("gateway", "tower")
    words = r"no other helper offers to serve .*gateway is left out for 60 s \(it answers wrong\); tower is left out"
    with pytest.raises(NoHelperError, match=words):
        await search.round.open()
    await search.round.close()
