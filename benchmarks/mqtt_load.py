"""A load generator's MQTT 3.1.1 client (OASIS 2014): one socket, no thread, cheap enough to outrun what it measures."""

import select
import socket
import struct
import time
from collections.abc import Iterator

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90
QUALITY = 0x06
RECEIVE_BYTES = 1 << 18
PATIENCE_SECONDS = 30.0


class MqttLoad:
    """Publishes and receives at QoS 1. `unacknowledged` counts publications that the broker has not confirmed."""

    def __init__(self, host: str, port: int, client_id: str) -> None:
        self._socket = socket.create_connection((host, port), timeout=PATIENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._unsent = bytearray()
        self._identifier = 0
        self.unacknowledged = 0
        name = client_id.encode()
        self._send(packet(CONNECT, b"\x00\x04MQTT\x04\x02\x00\x00" + struct.pack("!H", len(name)) + name))
        self._await(CONNACK)
        self._socket.setblocking(False)

    def close(self) -> None:
        """Drop the connection."""
        self._socket.close()

    def subscribe(self, topic_filter: str) -> None:
        """Hear a filter at QoS 1, from when this returns."""
        name = topic_filter.encode()
        self._send(packet(SUBSCRIBE, b"\x00\x01" + struct.pack("!H", len(name)) + name + b"\x01"))
        self._await(SUBACK)

    def publish_unacknowledged(self, topic: str, data: bytes) -> None:
        """Queue one publication at QoS 0; `poll` sends it."""
        name = topic.encode()
        self._unsent += packet(PUBLISH, struct.pack("!H", len(name)) + name + data)

    def publish(self, topic: str, data: bytes) -> None:
        """Queue one publication; `poll` sends it."""
        self._identifier = self._identifier % 0xFFFF + 1
        name = topic.encode()
        body = struct.pack("!H", len(name)) + name + struct.pack("!H", self._identifier) + data
        self._unsent += packet(PUBLISH | 0x02, body)
        self.unacknowledged += 1

    def poll(self, seconds: float) -> list[tuple[float, bytes]]:
        """Send what is queued and return what came within `seconds`: when, and the payload."""
        self._flush()
        reads, writes, _ = select.select([self._socket], [self._socket] if self._unsent else [], [], max(0.0, seconds))
        if writes:
            self._flush()
        if reads:
            self._receive()
        return list(self._heard(time.perf_counter()))

    def _receive(self) -> None:
        received = self._socket.recv(RECEIVE_BYTES)
        if not received:
            raise ConnectionError("the broker hung up")
        self._buffer += received

    def _heard(self, now: float) -> Iterator[tuple[float, bytes]]:
        for kind, body in self._packets():
            if kind & 0xF0 == PUBLISH:
                at = 2 + struct.unpack_from("!H", body)[0]
                if kind & QUALITY:
                    self._unsent += packet(PUBACK, body[at : at + 2])
                    at += 2
                yield now, bytes(body[at:])
            elif kind == PUBACK:
                self.unacknowledged -= 1
        self._flush()

    def _packets(self) -> Iterator[tuple[int, bytes]]:
        position, buffer = 0, self._buffer
        try:
            while (found := length_at(buffer, position + 1)) and sum(found) <= len(buffer):
                kind = buffer[position]
                at, length = found
                position = at + length
                yield kind, bytes(buffer[at:position])
        finally:
            del buffer[:position]

    def _flush(self) -> None:
        while self._unsent:
            try:
                del self._unsent[: self._socket.send(self._unsent)]
            except BlockingIOError:
                return

    def _send(self, packet: bytes) -> None:
        self._unsent += packet
        self._flush()

    def _await(self, wanted: int) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            self._flush()
            select.select([self._socket], [], [], 1.0)
            self._receive()
            if any(kind == wanted for kind, _ in self._packets()):
                return
        raise TimeoutError(f"no packet of type {wanted:#x} within {PATIENCE_SECONDS:g} s")


def length_at(buffer: bytearray, at: int) -> tuple[int, int] | None:
    """Where a packet's body begins, and its length; None where that is not all there yet."""
    length = shift = 0
    while at < len(buffer):
        byte = buffer[at]
        length |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if byte < 0x80:
            return at, length
    return None


def packet(kind: int, body: bytes) -> bytes:
    """A control packet of a kind, its flags included."""
    length = len(body)
    head = bytearray([kind])
    while True:
        length, low = length >> 7, length & 0x7F
        head.append(low | (0x80 if length else 0))
        if not length:
            return bytes(head) + body
