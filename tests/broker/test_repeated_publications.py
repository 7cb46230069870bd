"""What the broker did not acknowledge is published again on the next connection, as MQTT wants it (section 4.4)."""

import socket
import struct
from types import SimpleNamespace

import pytest

from bundle_runtime.bundle import Bundle
from tests.support.bundles import write_bundle
from tests.support.coordinator import CoordinatorProcess
from tests.support.waiting import DEADLINE_SECONDS

CONNECT, PUBLISH, SUBSCRIBE = 0x10, 0x30, 0x80
DUPLICATE = 0x08


SUBSCRIPTIONS = 4
"""Of a coordinator: what devices send, their presence, manifests, and rosters."""


ANNOUNCED = ["edgeflock/v1/testfleet/task/tiny", "edgeflock/v1/testfleet/invite/tiny"]
"""Of a task that is there for the first time: its manifest, and that there is one."""

Received = tuple[bool, int, bytes]


def topic_of(publication: Received) -> str:
    """The one of `ANNOUNCED` that it is for, if any."""
    return next((topic for topic in ANNOUNCED if publication[2].startswith(topic.encode())), "another")


class ForgetfulBroker:
    """One connection after the other; it acknowledges only what it is told to."""

    def __init__(self, protocol: str) -> None:
        self._mqtt5 = protocol == "5"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(DEADLINE_SECONDS)
        self.host, self.port = self._listener.getsockname()

    def accept(self) -> None:
        """Take a connection and its subscriptions."""
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(DEADLINE_SECONDS)
        assert self._packet()[0] & 0xF0 == CONNECT
        self._connection.sendall(b"\x20\x03\x01\x00\x00" if self._mqtt5 else b"\x20\x02\x01\x00")
        for _ in range(SUBSCRIPTIONS):
            first, body = self._packet()
            assert first & 0xF0 == SUBSCRIBE, "nothing is published before the subscriptions are confirmed"
            properties = b"\x00" if self._mqtt5 else b""
            answer = body[:2] + properties + b"\x01"
            self._connection.sendall(bytes([0x90, len(answer)]) + answer)

    def publication(self) -> Received:
        """Whether the next one is a duplicate, its identifier, and topic with payload."""
        first, body = self._packet()
        assert first & 0xF0 == PUBLISH
        end = 2 + struct.unpack("!H", body[:2])[0]
        return bool(first & DUPLICATE), struct.unpack("!H", body[end : end + 2])[0], body[2:end] + body[end + 2 :]

    def acknowledge(self, identifier: int) -> None:
        """PUBACK."""
        self._connection.sendall(b"\x40\x02" + struct.pack("!H", identifier))

    def hang_up(self) -> None:
        """Close the connection."""
        self._connection.close()

    def close(self) -> None:
        """Be gone."""
        self._connection.close()
        self._listener.close()

    def _packet(self) -> tuple[int, bytes]:
        first, length, shift = self._read(1)[0], 0, 0
        while True:
            byte = self._read(1)[0]
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return first, self._read(length)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            received = self._connection.recv(size - len(data))
            assert received, "the coordinator hung up"
            data += received
        return data


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    return write_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_publications_without_an_acknowledgement_are_repeated_and_those_with_one_are_not(
    tmp_path, bundle, protocol
) -> None:
    broker = ForgetfulBroker(protocol)
    place = SimpleNamespace(host=broker.host, port=broker.port)
    coordinator = CoordinatorProcess(tmp_path / "coordinator", place, [tmp_path / "bundle"], protocol=protocol)
    coordinator.start()
    try:
        broker.accept()
        announced = [broker.publication() for _ in ANNOUNCED]
        assert [topic_of(each) for each in announced] == ANNOUNCED
        assert not any(repeated for repeated, _, _ in announced)
        broker.hang_up()

        broker.accept()
        assert [broker.publication() for _ in ANNOUNCED] == [(True, *rest) for _, *rest in announced]
        repeated, other, announced_again = broker.publication()
        assert (repeated, announced_again) == (False, announced[0][2])
        used = {identifier for _, identifier, _ in announced}
        assert other not in used
        for identifier in (*used, other):
            broker.acknowledge(identifier)
        broker.hang_up()

        broker.accept()
        repeated, _, announced_again = broker.publication()
        assert (repeated, announced_again) == (False, announced[0][2])
    finally:
        coordinator.kill()
        broker.close()
