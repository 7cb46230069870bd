"""Sessions over a wire that loses, repeats, reorders and forges, with ends and a relay that restart: a request is
answered once, applied once, and heard by nobody else; a session goes on, or ends.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from fleet_protocol.sessions.lifecycle import State
from tests.support.sessions_world import Packet, World

EXAMPLES = 40
ONE_OF_TWO = st.integers(0, 1)
ANY = st.integers(0, 10**6)
ACCIDENTS = (
    "relay killed",
    "helper killed",
    "device killed",
    "opened again",
    "device connects again",
    "device leaves",
)


class Sessions(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.settle(1)
        for device in self.world.devices:
            self.world.open(device)
        self.world.settle(2)

    @rule(device=ONE_OF_TWO)
    def open_where_there_is_none(self, device: int) -> None:
        end = self.world.devices[device].end
        if end is None or end.state is State.CLOSED:
            self.world.open(self.world.devices[device])

    @rule(device=ONE_OF_TWO, size=st.sampled_from([0, 1, 100, 70_000]), fill=st.integers(0, 255))
    def request(self, device: int, size: int, fill: int) -> None:
        chosen = self.world.devices[device]
        if chosen.end and chosen.end.has_room:
            chosen.request(bytes([fill]) * size)
            self.world.turn()

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0, 25.0]))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(most=st.integers(1, 30))
    def flow(self, most: int) -> None:
        self.world.turn()
        for _ in range(min(most, len(self.world.wire))):
            self.world.deliver(self.world.wire.pop(0))

    @precondition(lambda self: self.world.wire)
    @rule(at=ANY)
    def deliver_early(self, at: int) -> None:
        self.world.deliver(self.world.wire.pop(at % len(self.world.wire)))

    @precondition(lambda self: self.world.wire)
    @rule(at=ANY)
    def lose(self, at: int) -> None:
        self.world.wire.pop(at % len(self.world.wire))

    @precondition(lambda self: self.world.seen)
    @rule(at=ANY)
    def repeat(self, at: int) -> None:
        self.world.deliver(self.world.seen[at % len(self.world.seen)])

    @precondition(lambda self: self.world.seen)
    @rule(at=ANY, other=ANY)
    def inject_elsewhere(self, at: int, other: int) -> None:
        seen = self.world.seen
        self.world.deliver(Packet(seen[other % len(seen)].topic, seen[at % len(seen)].data))

    @precondition(lambda self: self.world.seen)
    @rule(at=ANY, place=ANY, bit=st.integers(0, 7))
    def alter(self, at: int, place: int, bit: int) -> None:
        packet = self.world.seen[at % len(self.world.seen)]
        data = bytearray(packet.data)
        data[place % len(data)] ^= 1 << bit
        self.world.deliver(Packet(packet.topic, bytes(data)))

    @rule(helper=ONE_OF_TWO, at=ANY)
    def answer(self, helper: int, at: int) -> None:
        if waiting := self.world.helpers[helper].waiting:
            self.world.helpers[helper].answer(at % len(waiting))

    @rule(accident=st.sampled_from(ACCIDENTS), at=ONE_OF_TWO)
    def accident(self, accident: str, at: int) -> None:
        world, device = self.world, self.world.devices[at]
        match accident:
            case "relay killed":
                world.start_relay()
            case "helper killed":
                world.restart_helper(world.helpers[at])
            case "device killed":
                device.restart()
            case "opened again":
                world.open(device)
            case "device connects again" if device.end:
                device.end.reconnected(world.now)
            case "device leaves" if device.end:
                device.end.leave()

    @invariant()
    def what_is_handed_up_was_sent(self) -> None:
        sent = {place: message for device in self.world.devices for place, message in device.sent.items()}
        for helper in self.world.helpers:
            assert helper.handed.items() <= sent.items()

    @invariant()
    def no_request_is_handed_to_two_helpers(self) -> None:
        first, second = self.world.helpers
        assert not first.handed.keys() & second.handed.keys()

    def teardown(self) -> None:
        """Whatever has happened: once the wire is whole, every session goes on, or ends."""
        self.world.settle(300)
        for device in self.world.devices:
            assert self.world.is_settled(device), (device.name, device.end.state if device.end else None)
        for device in self.world.devices:
            self.world.open(device)
        self.world.settle(130)
        for device in self.world.devices:
            assert device.end is not None
            assert device.end.state is State.OPEN, (device.name, device.events)
            device.request(b"still works")
        self.world.settle(10)
        assert all(self.world.is_settled(device) for device in self.world.devices)


def test_sessions_go_on_or_end_and_nothing_is_heard_or_answered_twice() -> None:
    run_state_machine_as_test(Sessions, settings=settings(max_examples=EXAMPLES))
