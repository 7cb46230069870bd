"""PUBLISH and PUBACK are told from all other packets, wherever the stream is cut, and written as paho writes them."""

import tracemalloc
from itertools import pairwise

import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from broker_coordinator.admission.decisions import Message
from broker_coordinator.mqtt.traffic import (
    Arrived,
    TrafficDivider,
    acknowledgements,
    publication_packet,
)
from fleet_host.mqtt_packets import MalformedPacketError

CONNACK, SUBACK, PINGRESP = b"\x20\x03\x00\x00\x00", b"\x90\x03\x00\x01\x01", b"\xd0\x00"
NO_PROPERTIES, ALIAS_AND_USER_PROPERTY = b"\x00", b"\x0a\x23\x00\x05\x26\x00\x01k\x00\x01v"
A_LONG_PROPERTY = b"\x88\x01\x26\x00\x01k\x00\x82" + b"v" * 0x82


LIMIT = 10_000
"""Below the largest packets that are drawn."""


def packet(kind: int, body: bytes) -> bytes:
    """Its length in the bytes that MQTT gives it."""
    length, coded = len(body), bytearray()
    while True:
        length, low = length >> 7, length & 0x7F
        coded.append(low | (0x80 if length else 0))
        if not length:
            return bytes([kind]) + bytes(coded) + body


def divided(stream: bytes, cuts: list[int], *, mqtt5: bool) -> tuple[Arrived, bytes]:
    divider, others = TrafficDivider(mqtt5=mqtt5, max_packet_bytes=LIMIT), b""
    borders = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    for begin, end in pairwise(borders):
        others += divider.divide(stream[begin:end])
    return divider.take(), others


@st.composite
def streams(draw):
    """What a broker sends, and what is in it."""
    mqtt5, stream, wanted, others = draw(st.booleans()), b"", Arrived(), b""
    for _ in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["at least once", "at most once", "acknowledged", "other"]))
        identifier = draw(st.integers(1, 0xFFFF))
        if kind == "other":
            other = draw(st.sampled_from([CONNACK, SUBACK, PINGRESP]))
            stream, others = stream + other, others + other
        elif kind == "acknowledged":
            reason = draw(st.sampled_from([b"", b"\x00", b"\x10\x00", b"\x87", b"\x97\x00"])) if mqtt5 else b""
            stream += packet(0x40, identifier.to_bytes(2, "big") + reason)
            wanted.acknowledged.append(identifier)
            wanted.refused += [reason[0]] if reason[:1] >= b"\x80" else []
        else:
            topic = draw(st.text(max_size=20).filter(lambda text: len(text.encode()) < 60))
            data = draw(st.binary(max_size=20) | st.integers(100, 20_000).map(bytes))
            properties = draw(st.sampled_from([NO_PROPERTIES, ALIAS_AND_USER_PROPERTY, A_LONG_PROPERTY]))
            asked = kind == "at least once"
            body = len(topic.encode()).to_bytes(2, "big") + topic.encode()
            body += identifier.to_bytes(2, "big") if asked else b""
            body += properties if mqtt5 else b""
            stream += packet(0x30 | (0x02 if asked else 0) | draw(st.sampled_from([0, 0x01, 0x08])), body + data)
            size = len(body + data)
            unread = f"a packet of {size} bytes; at most {LIMIT} are read"
            wanted.messages.append(Message(topic, data) if size <= LIMIT else Message(topic, b"", unread))
            wanted.identifiers += [identifier] if asked else []
    return mqtt5, stream, wanted, others


@given(streams(), st.lists(st.integers(0, 100_000), max_size=12))
def test_the_load_is_divided_from_the_rest_wherever_the_stream_is_cut(case, cuts) -> None:
    mqtt5, stream, wanted, others = case
    assert divided(stream, cuts, mqtt5=mqtt5) == (wanted, others)


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_divided_or_refused(stream, mqtt5) -> None:
    try:
        arrived, others = divided(stream, [], mqtt5=mqtt5)
    except MalformedPacketError as error:
        assert str(error).startswith("the broker sent")
    else:
        assert sum(len(message.data) for message in arrived.messages) + len(others) <= len(stream)


@pytest.mark.parametrize(
    "stream",
    [
        packet(0x32, b"\x00"),
        packet(0x32, b"\x00\x05abc"),
        packet(0x32, b"\x00\x01a\x00"),
        packet(0x40, b"\x00"),
        packet(0x32, b"\xff\xff" + bytes(LIMIT)),
        b"\x30\xff\xff\xff\xff\x01",
    ],
)
def test_a_packet_that_ends_too_early_ends_the_connection(stream) -> None:
    with pytest.raises(MalformedPacketError):
        divided(stream, [], mqtt5=False)


@pytest.mark.parametrize("mqtt5", [True, False])
def test_publication_above_the_limit_is_dropped_as_it_comes_and_acknowledged_at_once(mqtt5) -> None:
    divider = TrafficDivider(mqtt5=mqtt5, max_packet_bytes=LIMIT)
    megabytes = 200
    length = 2 + len("a/b") + 2 + megabytes * 2**20
    coded = bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14 & 0x7F | 0x80, length >> 21])
    assert divider.divide(b"\x32" + coded + b"\x00\x03a/b\x12\x34") == b""
    assert divider.take() == Arrived(
        [Message("a/b", b"", f"a packet of {length} bytes; at most 10000 are read")], [0x1234]
    )
    block = bytes(2**20)
    tracemalloc.start()
    for _ in range(megabytes):
        assert divider.divide(block) == b""
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20
    assert divider.divide(PINGRESP) == PINGRESP
    assert divider.take() == Arrived()


def test_control_packet_above_the_limit_ends_the_connection() -> None:
    with pytest.raises(MalformedPacketError, match="type 9 and 10001 bytes; at most 10000"):
        divided(packet(0x90, bytes(LIMIT + 1)), [], mqtt5=True)


@pytest.mark.parametrize("properties", [b"", b"\x01", b"\x80", b"\x80\x80\x80\x80\x01"])
def test_properties_that_do_not_fit_end_the_connection(properties) -> None:
    with pytest.raises(MalformedPacketError):
        divided(packet(0x32, b"\x00\x01a\x00\x01" + properties), [], mqtt5=True)


def test_a_topic_that_is_no_text_is_no_topic() -> None:
    arrived, _ = divided(packet(0x30, b"\x00\x02\xff\xfehello"), [], mqtt5=False)
    assert arrived.messages == [Message("", b"hello")]


class Listening(paho.Client):
    """A paho client whose writes are kept."""

    written = b""

    def _packet_queue(self, _command, packet, *_):
        self.written += bytes(packet)
        return 0


@given(st.text("abc/", min_size=1, max_size=20), st.binary(max_size=300), st.integers(1, 0xFFFF), st.integers(0, 7))
def test_packets_are_those_that_paho_writes(topic, data, identifier, flags) -> None:
    mqtt5, retained, duplicate = bool(flags & 4), bool(flags & 2), bool(flags & 1)
    client = Listening(
        CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5 if mqtt5 else MQTTProtocolVersion.MQTTv311
    )
    client._sock = object()
    client._send_publish(identifier, topic.encode(), data, 1, retained, duplicate)
    client._send_puback(identifier)
    client._sock = None
    ours = publication_packet(topic, data, identifier, retained=retained, duplicate=duplicate, mqtt5=mqtt5)
    assert ours + acknowledgements([identifier]) == client.written
