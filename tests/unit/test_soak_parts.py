"""The parts of the soak that could hide a failure: the plan, and the cutting of the wire."""

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from tests.soak.places import PLACES, Kind
from tests.soak.plan import DECK, strikes
from tests.soak.wire import PUBACK, PUBLISH, OutgoingPackets

packets = st.lists(
    st.one_of(
        st.builds(
            lambda identifier: (PUBACK, "", bytes([PUBACK << 4, 2]) + identifier.to_bytes(2, "big")), st.integers(0, 9)
        ),
        st.builds(
            lambda topic, body: (PUBLISH, topic, publication(topic, body)),
            st.text("a/b", max_size=9),
            st.binary(max_size=300),
        ),
    ),
    max_size=6,
)


def publication(topic: str, body: bytes) -> bytes:
    rest = len(topic).to_bytes(2, "big") + topic.encode() + body
    length = bytes([len(rest) & 0x7F | 0x80, len(rest) >> 7]) if len(rest) > 127 else bytes([len(rest)])
    return bytes([PUBLISH << 4]) + length + rest


@given(packets, st.lists(st.integers(0, 2000), max_size=8))
def test_packets_are_found_at_their_offsets_however_they_are_written(wanted, cuts) -> None:
    stream, cutter, found, written = b"".join(data for *_, data in wanted), OutgoingPackets(), {}, 0
    for cut in [*sorted(cuts), len(stream)]:
        part = stream[written : max(written, cut)]
        for packet in cutter.beginning_in(stream[written:]):  # the rest is offered again after a partial write
            found[written + packet.begin] = (packet.kind, packet.topic, written + packet.end)
        cutter.wrote(part)
        written += len(part)
    begins = [sum(len(data) for *_, data in wanted[:number]) for number in range(len(wanted))]
    assert found == {
        begin: (kind, topic, begin + len(data)) for begin, (kind, topic, data) in zip(begins, wanted, strict=True)
    }


def test_plan_is_the_same_for_a_seed_and_deals_every_place_alike() -> None:
    dealt = list(islice(strikes(3), 5 * len(DECK)))
    assert dealt == list(islice(strikes(3), 5 * len(DECK)))
    assert dealt != list(islice(strikes(4), 5 * len(DECK)))
    assert {(each.kind, each.place) for each in dealt[: len(DECK)]} == set(DECK)
    for kind in Kind:
        for place in PLACES[kind]:
            assert sum(each.place is place for each in dealt) == 5
