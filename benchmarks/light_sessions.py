"""Thousands of agents' MQTT 3.1.1 sessions in one process: what an idle agent says and hears, and no agent behind it.

Each connects with its last will, subscribes, says that it is online, and sends what waits until that has its receipt.
When the connection ends it comes back after the pauses that the shipped agent makes.
"""

import asyncio
import contextlib
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.mqtt_load import CONNACK, CONNECT, PUBACK, PUBLISH, QUALITY, SUBACK, SUBSCRIBE, length_at, packet
from edge_agent.mqtt.broker_client import BROKER_TIMEOUT_SECONDS
from fleet_host.backoff import delay_seconds

PING = packet(0xC0, b"")
WILL_AND_CLEAN = 0x2E
"""CONNECT's flags: a clean session, and a will that is retained at QoS 1."""
AT_LEAST_ONCE, RETAINED = 0x02, 0x01
UNSUBSCRIBE = 0xA2


@dataclass(frozen=True, slots=True)
class Words:
    """What a session says: topics and signed messages. `filters` are heard always, `once` until something came."""

    client: str
    will: tuple[str, bytes]
    online: tuple[str, bytes]
    filters: Sequence[str]
    once: str


class LightSession(asyncio.Protocol):
    """One agent's. `heard` is called with each message that comes to one of its filters."""

    def __init__(self, words: Words, keepalive: int, heard: Callable[["LightSession", str, bytes], None]) -> None:
        self.connected_at: float | None = None
        self.waiting: tuple[str, bytes] | None = None
        """A topic and a signed message, sent on each connection until it is taken away."""
        self._words = words
        self._keepalive = keepalive
        self._heard = heard
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._ready: asyncio.Future[None] | None = None
        self._lost: asyncio.Future[None] | None = None

    async def keep(self, host: str, port: int) -> None:
        """Be connected, until cancelled."""
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            self._ready, self._lost = loop.create_future(), loop.create_future()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(BROKER_TIMEOUT_SECONDS):
                    await loop.create_connection(lambda: self, host, port)
                    await self._ready
                self.connected_at, attempt = loop.time(), 0
                await self._pinging(self._lost)
            self.connected_at = None
            self._drop()
            await asyncio.sleep(delay_seconds(attempt, random.random()))
            attempt += 1

    def send_waiting(self) -> bool:
        """Send what waits, if something does and there is a connection; whether that is so."""
        if self.waiting is None or self.connected_at is None:
            return False
        self._publish(*self.waiting, AT_LEAST_ONCE)
        return True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._buffer.clear()
        topic, data = self._words.will
        name = self._words.client.encode()
        head = b"\x00\x04MQTT\x04" + bytes([WILL_AND_CLEAN]) + struct.pack("!H", self._keepalive)
        body = head + _text(name) + _text(topic.encode()) + _text(data)
        transport.write(packet(CONNECT, body))

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        for future in (self._ready, self._lost):
            if future is not None and not future.done():
                future.set_exception(ConnectionError("the broker is gone"))

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._buffer += data
        for kind, body in self._packets():
            if kind == CONNACK:
                wanted = [*self._words.filters, self._words.once]
                self._write(
                    packet(SUBSCRIBE, b"\x00\x01" + b"".join(_text(each.encode()) + b"\x00" for each in wanted))
                )
            elif kind == SUBACK:
                self._publish(*self._words.online, AT_LEAST_ONCE | RETAINED)
                if self.waiting is not None:
                    self._publish(*self.waiting, AT_LEAST_ONCE)
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result(None)
            elif kind & 0xF0 == PUBLISH:
                self._hear(kind, body)

    def _hear(self, kind: int, body: bytes) -> None:
        at = 2 + struct.unpack_from("!H", body)[0]
        topic = body[2:at].decode()
        if kind & QUALITY:
            self._write(packet(PUBACK, body[at : at + 2]))
            at += 2
        if topic == self._words.once:
            self._write(packet(UNSUBSCRIBE, b"\x00\x02" + _text(topic.encode())))
        self._heard(self, topic, body[at:])

    def _publish(self, topic: str, data: bytes, flags: int) -> None:
        self._write(packet(PUBLISH | flags, _text(topic.encode()) + b"\x00\x03" + data))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def _pinging(self, lost: asyncio.Future[None]) -> None:
        while not lost.done():
            await asyncio.wait([lost], timeout=self._keepalive)
            self._write(PING)
        lost.exception()

    def _drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._transport = None

    def _packets(self) -> Iterator[tuple[int, bytes]]:
        position, buffer = 0, self._buffer
        while len(buffer) > position + 1 and (found := length_at(buffer, position + 1)) and sum(found) <= len(buffer):
            kind, (at, length) = buffer[position], found
            position = at + length
            yield kind, bytes(buffer[at:position])
        del buffer[:position]


def _text(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data
