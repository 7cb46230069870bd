"""Each publication is sent until the broker has it, with an identifier of its own, and never too many at once."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker_coordinator.distribution.signed_messages import Publication
from broker_coordinator.mqtt.outgoing import Outgoing
from fleet_host.publication_limit import OnItsWay

WINDOW = 4
HEAD = 5
"""Bytes in front of the identifier: first byte, length, length of the topic, the topic."""


class AnyOrder(RuleBasedStateMachine):
    """A link that sends and loses connections, and a broker that acknowledges whatever it likes."""

    def __init__(self) -> None:
        super().__init__()
        self.outgoing = Outgoing(WINDOW, mqtt5=False)
        self.sent = 0
        self.on_this_connection: dict[int, bytes] = {}
        self.expected: dict[int, bytes] = {}

    def note(self, packet: bytes, *, duplicate: bool) -> None:
        identifier, data = int.from_bytes(packet[HEAD : HEAD + 2], "big"), packet[HEAD + 2 :]
        assert bool(packet[0] & 0x08) is duplicate
        assert identifier
        assert identifier not in self.on_this_connection
        self.on_this_connection[identifier] = data
        if duplicate:
            assert self.expected[identifier] == data
        else:
            assert identifier not in self.expected
            self.expected[identifier] = data

    @precondition(lambda self: self.outgoing.room() > 0)
    @rule()
    def send(self) -> None:
        self.sent += 1
        for packet in self.outgoing.repeat(0.0):
            self.note(packet, duplicate=True)
        if self.outgoing.room() > 0:
            self.note(self.outgoing.send(Publication("t", str(self.sent).encode()), 0.0), duplicate=False)

    @rule()
    def lose_connection(self) -> None:
        self.outgoing.connection_lost()
        self.on_this_connection = {}

    @rule(identifier=st.integers(0, 12))
    def acknowledge(self, identifier: int) -> None:
        self.outgoing.acknowledge(identifier)
        self.expected.pop(identifier, None)
        self.on_this_connection.pop(identifier, None)

    @invariant()
    def what_is_not_acknowledged_is_kept_and_no_more_than_the_window_is_under_way(self) -> None:
        assert len(self.outgoing) == len(self.expected) <= WINDOW
        assert self.outgoing.room() == WINDOW - len(self.on_this_connection)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=200)


def test_identifiers_begin_again_behind_the_last_and_skip_those_under_way() -> None:
    outgoing = Outgoing(3, mqtt5=True)
    outgoing.send(Publication("t", b"stays"), 0.0)
    seen = set()
    for _ in range(70_000):
        identifier = int.from_bytes(outgoing.send(Publication("t", b""), 0.0)[HEAD : HEAD + 2], "big")
        outgoing.acknowledge(identifier)
        seen.add(identifier)
    assert seen == set(range(2, 0x10000))


def test_only_what_was_sent_on_a_connection_shows_why_it_ended() -> None:
    outgoing = Outgoing(2, mqtt5=False)
    short, long = Publication("t", b"short"), Publication("t", bytes(100))
    packet = len(outgoing.send(long, 10.0))
    outgoing.send(short, 11.0)
    assert outgoing.on_its_way(13.0) == OnItsWay(packet, 3.0)
    outgoing.connection_lost()
    assert outgoing.on_its_way(20.0) == OnItsWay()
    outgoing.repeat(21.0)
    assert outgoing.on_its_way(22.0) == OnItsWay(packet, 1.0)
    outgoing.acknowledge(1)
    assert outgoing.on_its_way(22.0) == OnItsWay(packet - 95, 1.0, taken=packet)
