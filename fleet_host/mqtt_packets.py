"""The lengths of MQTT packets (MQTT 3.1.1 and 5, section 2.2), and a gate for those that are too long. Pure."""

from collections.abc import Callable
from typing import Final

MAX_LENGTH_BYTES: Final = 4

PUBLISH: Final = 0x30
"""The type of a packet is the upper half of its first byte, `first & TYPE`."""
TYPE: Final = 0xF0
QUALITY: Final = 0x06
AT_LEAST_ONCE: Final = 0x02

_NO_PROPERTIES: Final = b"\x00"


class MalformedPacketError(ConnectionError):
    """The broker sent bytes that are not MQTT: the connection can't be used any longer."""


def read_length(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """Where the bytes begin whose number stands at `at`, and that number; None where it is not all there.

    Raises:
        MalformedPacketError: it takes more than `MAX_LENGTH_BYTES` bytes.
    """
    if at >= len(data):
        return None
    if (length := data[at]) < 0x80:
        return at + 1, length
    length &= 0x7F
    for more in range(1, MAX_LENGTH_BYTES):
        if at + more >= len(data):
            return None
        byte = data[at + more]
        length |= (byte & 0x7F) << 7 * more
        if byte < 0x80:
            return at + more + 1, length
    raise MalformedPacketError(f"the broker sent a length of more than {MAX_LENGTH_BYTES} bytes")


def write_length(length: int) -> bytes:
    """The bytes of a length."""
    coded = bytearray()
    while length >= 0x80:
        coded.append(length & 0x7F | 0x80)
        length >>= 7
    coded.append(length)
    return bytes(coded)


def publication_bytes(topic: str, payload_bytes: int, *, mqtt5: bool) -> int:
    """The whole length of a PUBLISH at QoS 1 without properties: what a broker's Maximum Packet Size is about."""
    body = 2 + len(topic.encode()) + 2 + (len(_NO_PROPERTIES) if mqtt5 else 0) + payload_bytes
    return 1 + len(write_length(body)) + body


OnTooLong = Callable[[str, int], None]
"""(topic, bytes of the packet)"""


class PacketGate:
    """Passes on what a broker sends. Of a PUBLISH longer than `maximum_bytes` only topic and identifier pass.

    So the client acknowledges it as any other, and a broker can't be made to cut us off, or to stop, by a message that
    somebody left there. Its payload is dropped as it comes: at most `maximum_bytes` are ever held.
    """

    def __init__(self, maximum_bytes: int, *, mqtt5: bool, on_too_long: OnTooLong) -> None:
        self._maximum_bytes = maximum_bytes
        self._mqtt5 = mqtt5
        self._on_too_long = on_too_long
        self._begun = bytearray()
        """Of a packet that is not decided on yet."""
        self._to_pass = 0
        self._to_drop = 0

    def pass_on(self, data: bytes) -> bytes:
        """What the client shall read of `data`, which follows what came before.

        Raises:
            MalformedPacketError: these are no packets, or a packet other than PUBLISH is too long.
        """
        passed = bytearray()
        rest = memoryview(data)
        while rest:
            if self._to_drop:
                dropped = min(self._to_drop, len(rest))
                self._to_drop -= dropped
                rest = rest[dropped:]
            elif self._to_pass:
                taken = rest[: self._to_pass]
                self._to_pass -= len(taken)
                passed += taken
                rest = rest[len(taken) :]
            else:
                wanted = max(1, self._wanted())
                self._begun += rest[:wanted]
                rest = rest[wanted:]
                passed += self._decide()
        return bytes(passed)

    def _wanted(self) -> int:
        """How many more bytes the decision needs, as far as that is known."""
        if (found := read_length(self._begun, 1)) is None:
            return 1
        begin, length = found
        if begin + length <= self._maximum_bytes:
            return 0
        if len(self._begun) < begin + 2:
            return begin + 2 - len(self._begun)
        return self._end_of_identifier(begin) - len(self._begun)

    def _end_of_identifier(self, begin: int) -> int:
        topic_bytes = self._begun[begin] << 8 | self._begun[begin + 1]
        return begin + 2 + topic_bytes + (2 if self._begun[0] & QUALITY else 0)

    def _decide(self) -> bytes:
        """Let the packet begin, whole or without its payload; nothing while that can't be told yet."""
        if (found := read_length(self._begun, 1)) is None:
            return b""
        begin, length = found
        is_long = begin + length > self._maximum_bytes
        if is_long and self._begun[0] & TYPE != PUBLISH:
            raise MalformedPacketError(f"the broker sent a packet of {length} bytes that is no message")
        if is_long and self._wanted() > 0:
            return b""
        begun, self._begun = self._begun, bytearray()
        if not is_long:
            self._to_pass = length
            return bytes(begun)
        return self._shortened(begun, begin, length)

    def _shortened(self, begun: bytearray, begin: int, length: int) -> bytes:
        head = begun[begin:]
        self._to_drop = length - len(head)
        if self._to_drop < 0:
            raise MalformedPacketError(f"the broker sent a PUBLISH that ends after {length} bytes")
        topic = head[2 : 2 + (head[0] << 8 | head[1])]
        self._on_too_long(topic.decode(errors="replace"), begin + length)
        properties = _NO_PROPERTIES if self._mqtt5 else b""
        return bytes(begun[:1]) + write_length(len(head) + len(properties)) + bytes(head) + properties
