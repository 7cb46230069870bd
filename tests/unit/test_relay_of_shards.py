"""A fleet of several shards has one relay: whoever is where, sessions open, and go on where they began."""

import pytest

from fleet_protocol import topics
from fleet_protocol.errors import ProtocolError
from fleet_protocol.sessions.events import Granted
from fleet_protocol.sessions.lifecycle import State
from fleet_protocol.shards import shard_of
from session_relay.relay.core.relay import Relay
from tests.support.sessions_world import COORDINATOR, FLEET, Device, Machine, Packet, World

SHARDS = ("0", "1")


class ShardedWorld(World):
    """Its relay hears two shards."""

    def start_relay(self) -> None:
        self.relay = Relay(COORDINATOR, FLEET, SHARDS, self.directory())


def put(machine: Machine, shard: str) -> None:
    """Let it speak there from its next session on."""
    machine.shard = shard
    machine.restart()


def world_of(device_shard: str, helper_shard: str) -> ShardedWorld:
    world = ShardedWorld()
    put(world.devices[0], device_shard)
    for helper in world.helpers:
        helper.shard = helper_shard
        world.restart_helper(helper)
    world.settle(1)
    return world


def answers(world: World, device: Device, message: bytes) -> None:
    before = len(device.answered)
    device.request(message)
    world.settle(2)
    assert device.end.state is State.OPEN
    assert len(device.answered) == before + 1


@pytest.mark.parametrize("device_shard", SHARDS)
@pytest.mark.parametrize("helper_shard", SHARDS)
def test_device_of_any_shard_has_a_session_with_a_helper_of_any(device_shard, helper_shard):
    world = world_of(device_shard, helper_shard)
    device = world.devices[0]
    world.open(device)
    world.settle(1)
    assert isinstance(device.events[0], Granted)
    answers(world, device, b"one step")
    told = [packet for packet in world.seen if packet.topic.endswith("/relayed")]
    assert {topics.shard_in(packet.topic) for packet in told if device.name in packet.topic} == {device_shard}
    assert {topics.shard_in(packet.topic) for packet in told if device.name not in packet.topic} == {helper_shard}


def test_relay_that_has_forgotten_everything_asks_a_helper_in_its_own_shard():
    world = ShardedWorld()
    for machine in world.machines:
        machine.shard = shard_of(machine.name, SHARDS)
        machine.restart()
    for helper in world.helpers:
        world.restart_helper(helper)
    world.settle(1)
    device = world.devices[0]
    world.open(device)
    world.settle(1)
    answers(world, device, b"before")
    world.start_relay()
    device.request(b"after")
    world.settle(60)
    assert world.is_settled(device)


def test_session_goes_on_under_the_shard_where_it_began_and_the_next_begins_where_the_device_is():
    world = world_of("0", "1")
    device = world.devices[0]
    world.open(device)
    world.settle(1)
    answers(world, device, b"before the move")
    put_aside = device.end
    device.shard = "1"
    answers(world, device, b"after the move")
    assert device.end is put_aside
    device.restart()
    world.open(device)
    world.settle(1)
    answers(world, device, b"from its new shard")
    assert device.end.state is State.OPEN


def test_shard_that_the_fleet_has_not_is_refused():
    world = world_of("0", "0")
    for topic in (topics.session(FLEET, "2", "kitchen-pi"), topics.state(FLEET, "", "kitchen-pi")):
        with pytest.raises(ProtocolError, match="is not a topic of this relay"):
            world.relay.receive(topic, b"\xd2", world.now)


def test_presence_that_a_helper_takes_back_loses_it_no_session():
    world = world_of("0", "0")
    device = world.devices[0]
    world.open(device)
    world.settle(1)
    for helper in world.helpers:
        world.relay.receive(topics.state(FLEET, "1", helper.name), b"", world.now)
    answers(world, device, b"one step")
    assert not world.relay.counters.refused


def test_forged_message_under_another_shard_leads_no_answer_astray():
    world = world_of("0", "0")
    device = world.devices[0]
    world.open(device)
    world.settle(1)
    own = [packet for packet in world.seen if packet.topic == topics.session(FLEET, "0", device.name)]
    for packet in own:
        with pytest.raises(ProtocolError):
            world.relay.receive(topics.session(FLEET, "1", device.name), packet.data, world.now)
    assert world.relay.book.outbox.shard_of(device.name) == "0"
    world.deliver(Packet(topics.session(FLEET, "0", device.name), b""))
    answers(world, device, b"one step")
