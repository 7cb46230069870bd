"""The gate in front of an MQTT client: what fits passes byte for byte, a longer message loses its payload alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_coordinator.mqtt.traffic import publication_packet
from fleet_host.mqtt_packets import MalformedPacketError, PacketGate, publication_bytes, read_length, write_length

LIMIT = 300
TOPIC = "edgeflock/v1/home/0/kitchen/down"
PINGRESP = b"\xd0\x00"
SUBACK = b"\x90\x03\x00\x01\x01"


def message(payload: bytes, *, mqtt5: bool, topic: str = TOPIC) -> bytes:
    return publication_packet(topic, payload, 7, retained=True, duplicate=False, mqtt5=mqtt5)


def through(data: bytes, cuts: list[int], *, mqtt5: bool) -> tuple[bytes, list[tuple[str, int]]]:
    """What passes of `data`, read in pieces that end at `cuts`, and what was said to be too long."""
    refused: list[tuple[str, int]] = []
    gate = PacketGate(LIMIT, mqtt5=mqtt5, on_too_long=lambda topic, size: refused.append((topic, size)))
    ends = [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    passed = b"".join(gate.pass_on(data[begin:end]) for begin, end in zip([0, *ends], ends, strict=False))
    return passed, refused


payloads = st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([250, 262, 263, 300, 20_000]).map(bytes)))


@given(payloads, st.lists(st.integers(min_value=0)), st.booleans())
def test_what_fits_passes_unchanged_and_what_does_not_passes_without_its_payload(contents, cuts, mqtt5):
    sent, wanted, wanted_refused = b"", b"", []
    for content in contents:
        packet = message(content, mqtt5=mqtt5)
        fits = len(packet) <= LIMIT
        sent += packet + PINGRESP + SUBACK
        wanted += (packet if fits else message(b"", mqtt5=mqtt5)) + PINGRESP + SUBACK
        wanted_refused += [] if fits else [(TOPIC, len(packet))]
    assert through(sent, cuts, mqtt5=mqtt5) == (wanted, wanted_refused)


@given(st.binary(max_size=2000), st.lists(st.integers(min_value=0)))
def test_any_bytes_pass_or_end_in_one_error(data, cuts):
    try:
        passed, _ = through(data, cuts, mqtt5=True)
    except MalformedPacketError:
        return
    assert len(passed) <= 2 * len(data) + 8


def test_nothing_of_a_payload_is_held():
    gate = PacketGate(LIMIT, mqtt5=True, on_too_long=lambda *_: None)
    gate.pass_on(message(bytes(100_000), mqtt5=True)[:50_000])
    assert gate._begun == b""


@pytest.mark.parametrize(
    "data",
    [
        b"\x20" + write_length(1000),  # a CONNACK
        b"\x32\xff\xff\xff\xff\x01",
        b"\x32" + write_length(400) + b"\xff\xff" + bytes(65_537),  # a topic longer than its packet
    ],
)
def test_what_is_no_message_and_too_long_ends_the_connection(data):
    with pytest.raises(MalformedPacketError):
        through(data, [], mqtt5=True)


@pytest.mark.parametrize("mqtt5", [True, False])
@pytest.mark.parametrize("payload_bytes", [0, 80, 81, 90, 16_300, 16_350, 3_000_000])
def test_length_of_a_publication_is_known_before_it_is_written(payload_bytes, mqtt5):
    packet = message(bytes(payload_bytes), mqtt5=mqtt5)
    assert publication_bytes(TOPIC, payload_bytes, mqtt5=mqtt5) == len(packet)


@given(st.integers(min_value=0, max_value=0x0FFF_FFFF))
def test_lengths_come_back(length):
    coded = write_length(length)
    assert read_length(coded, 0) == (len(coded), length)
    assert read_length(coded[:-1], 0) is None
