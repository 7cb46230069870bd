"""Reading and writing PUBLISH and PUBACK packets (MQTT 3.1.1 and 5, sections 3.3 and 3.4). Pure.

All other packets are left to paho, which would take several times as long for a message and its receipt.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from broker_coordinator.admission.decisions import Message
from fleet_host.mqtt_packets import (
    AT_LEAST_ONCE,
    PUBLISH,
    QUALITY,
    TYPE,
    MalformedPacketError,
    read_length,
    write_length,
)

# In the first byte of a PUBLISH, beside its quality of service.
_DUPLICATE: Final = 0x08
_RETAINED: Final = 0x01

_PUBACK: Final = 0x40
_FIRST_FAILURE: Final = 0x80


@dataclass(slots=True)
class Arrived:
    """Messages, and the `identifiers` of those at QoS 1, which are to be acknowledged.

    `acknowledged` are the identifiers of our own publications, `refused` the reason codes of those that the broker did
    not take.
    """

    messages: list[Message] = field(default_factory=list)
    identifiers: list[int] = field(default_factory=list)
    acknowledged: list[int] = field(default_factory=list)
    refused: list[int] = field(default_factory=list)


class TrafficDivider:
    """Takes PUBLISH and PUBACK out of what a broker sends, in MQTT 5 if `mqtt5`.

    Of a PUBLISH whose length exceeds `max_packet_bytes` only topic and identifier are read; the rest is dropped as it
    comes. It is acknowledged like any other, at once: the broker would send it again after a lost connection.
    """

    def __init__(self, *, mqtt5: bool, max_packet_bytes: int) -> None:
        self._mqtt5 = mqtt5
        self._max_packet_bytes = max_packet_bytes
        self._incomplete = bytearray()
        self._wanted_bytes = 0
        self._bytes_to_drop = 0
        self._arrived = Arrived()

    def take(self) -> Arrived:
        """What has arrived since the last call."""
        taken, self._arrived = self._arrived, Arrived()
        return taken

    def divide(self, data: bytes) -> bytes:
        """Take in received bytes; returns the packets of all other types, unchanged.

        Raises:
            MalformedPacketError: a packet is shorter than its required fields, or one of another type exceeds
                `max_packet_bytes`.
        """
        if self._bytes_to_drop:
            dropped = min(self._bytes_to_drop, len(data))
            self._bytes_to_drop -= dropped
            if not (data := data[dropped:]):
                return b""
        self._incomplete += data
        if len(self._incomplete) < self._wanted_bytes:
            return b""
        received = bytes(self._incomplete)
        at = 0
        others = bytearray()
        while (found := read_length(received, at + 1)) is not None:
            begin, length = found
            is_too_large = length > self._max_packet_bytes
            needed = self._head_bytes(received, at, found) if is_too_large else length
            if begin + needed > len(received):
                break
            packet_type = received[at] & TYPE
            body = received[begin : begin + needed]
            if is_too_large:
                self._take_head(received[at], body, length)
            elif packet_type == PUBLISH:
                self._take_message(received[at], body)
            elif packet_type == _PUBACK:
                self._take_acknowledgement(body)
            else:
                others += received[at : begin + length]
            at = begin + length
        self._bytes_to_drop = max(0, at - len(received))
        self._incomplete = bytearray(received[at:])
        self._wanted_bytes = begin + needed - at if found else 0
        return bytes(others)

    def _head_bytes(self, received: bytes, at: int, found: tuple[int, int]) -> int:
        """How much of a PUBLISH that is too large is read: its topic and identifier."""
        begin, length = found
        if received[at] & TYPE != PUBLISH:
            raise MalformedPacketError(
                f"the broker sent a packet of type {received[at] >> 4} and {length} bytes; at most"
                f" {self._max_packet_bytes} are read"
            )
        if begin + 2 > len(received):
            return 2
        identifier_bytes = 2 if received[at] & QUALITY else 0
        head_bytes = 2 + (received[begin] << 8 | received[begin + 1]) + identifier_bytes
        if head_bytes > length:
            raise MalformedPacketError(f"the broker sent a PUBLISH that ends after {length} bytes")
        return head_bytes

    def _take_head(self, first: int, head: bytes, length: int) -> None:
        end = len(head)
        if first & QUALITY:
            end -= 2
            self._arrived.identifiers.append(head[end] << 8 | head[end + 1])
        why = f"a packet of {length} bytes; at most {self._max_packet_bytes} are read"
        self._arrived.messages.append(Message(_topic(head[2:end]), b"", why))

    def _take_message(self, first: int, body: bytes) -> None:
        try:
            at = end = 2 + (body[0] << 8 | body[1])
            if first & QUALITY:
                self._arrived.identifiers.append(body[end] << 8 | body[end + 1])
                at += 2
            if self._mqtt5:
                at = sum(read_length(body, at) or (len(body), 1))
        except IndexError:
            at = len(body) + 1
        if at > len(body):
            raise MalformedPacketError(f"the broker sent a PUBLISH that ends after {len(body)} bytes")
        self._arrived.messages.append(Message(_topic(body[2:end]), body[at:]))

    def _take_acknowledgement(self, body: bytes) -> None:
        if len(body) < 2:
            raise MalformedPacketError("the broker sent a PUBACK without an identifier")
        self._arrived.acknowledged.append(body[0] << 8 | body[1])
        if self._mqtt5 and len(body) > 2 and body[2] >= _FIRST_FAILURE:
            self._arrived.refused.append(body[2])


def acknowledgements(identifiers: Iterable[int]) -> bytes:
    """One PUBACK for each, in order."""
    return b"".join([b"\x40\x02" + identifier.to_bytes(2, "big") for identifier in identifiers])


def publication_packet(
    topic: str, data: bytes, identifier: int, *, retained: bool, duplicate: bool, mqtt5: bool
) -> bytes:
    """A PUBLISH at QoS 1; `duplicate` where it may have been sent before."""
    first = PUBLISH | AT_LEAST_ONCE | (_RETAINED if retained else 0) | (_DUPLICATE if duplicate else 0)
    name = topic.encode()
    properties = b"\x00" if mqtt5 else b""
    length = 4 + len(name) + len(properties) + len(data)
    head = bytes([first]) + write_length(length) + len(name).to_bytes(2, "big")
    return b"".join((head, name, identifier.to_bytes(2, "big"), properties, data))


def unacknowledged_packet(topic: str, data: bytes, *, mqtt5: bool) -> bytes:
    """A PUBLISH at QoS 0."""
    name = topic.encode()
    properties = b"\x00" if mqtt5 else b""
    length = 2 + len(name) + len(properties) + len(data)
    head = bytes([PUBLISH]) + write_length(length) + len(name).to_bytes(2, "big")
    return b"".join((head, name, properties, data))


def _topic(name: bytes) -> str:
    """As text; none is no device's."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return ""
