"""Publications that the broker has not acknowledged; they are sent again after a lost connection. Pure: times are
seconds on any one clock.
"""

from collections import deque

from broker_coordinator.distribution.signed_messages import Publication
from broker_coordinator.mqtt.traffic import publication_packet
from fleet_host.mqtt_packets import publication_bytes
from fleet_host.publication_limit import OnItsWay

LARGEST_IDENTIFIER = 0xFFFF
"""Of an MQTT packet; 0 is none."""

LARGEST_PACKET_BYTES = 5 + 0xFFF_FFFF
"""Of any MQTT packet: the broker's limit where it names none."""


class PacketTooLargeError(Exception):
    """A publication makes a packet of `packet_bytes`, and the broker takes `max_packet_bytes`."""

    def __init__(self, topic: str, packet_bytes: int, max_packet_bytes: int) -> None:
        super().__init__(f"{topic}: {packet_bytes} bytes exceed {max_packet_bytes}")
        self.topic = topic
        self.packet_bytes = packet_bytes
        self.max_packet_bytes = max_packet_bytes


class Outgoing:
    """At most `window` publications are unacknowledged, in packets of MQTT 5 if `mqtt5`, else 3.1.1.

    `max_packet_bytes` is what the broker takes: it ends the connection over a larger packet.
    """

    def __init__(self, window: int, *, mqtt5: bool) -> None:
        self.window = window
        self.max_packet_bytes = LARGEST_PACKET_BYTES
        self._mqtt5 = mqtt5
        self._last_identifier = 0
        self._unacknowledged: dict[int, Publication] = {}
        self._sent_at: dict[int, float] = {}
        self._to_repeat: deque[int] = deque()
        self._longest_taken: Publication | None = None

    def __len__(self) -> int:
        return len(self._unacknowledged)

    def room(self) -> int:
        """How many may be sent now, repetitions included."""
        return self.window - len(self._unacknowledged) + len(self._to_repeat)

    def connection_lost(self) -> None:
        """Repeat every unacknowledged publication on the next connection (MQTT 5, section 4.4)."""
        self._to_repeat = deque(self._unacknowledged)
        self._longest_taken = None

    def on_its_way(self, now: float) -> OnItsWay:
        """What of this connection shows how long a packet the broker takes, where it ends `now`."""
        taken = self._packet_bytes(self._longest_taken) if self._longest_taken else 0
        waiting = set(self._to_repeat)  # these were not sent on this connection
        sizes = {
            number: self._packet_bytes(publication)
            for number, publication in self._unacknowledged.items()
            if number not in waiting
        }
        if not sizes:
            return OnItsWay(taken=taken)
        longest = max(sizes, key=sizes.__getitem__)
        return OnItsWay(sizes[longest], now - self._sent_at[longest], taken)

    def forget_too_large(self) -> list[PacketTooLargeError]:
        """Repeat nothing that exceeds `max_packet_bytes`; returns what that was."""
        forgotten = []
        for identifier, publication in list(self._unacknowledged.items()):
            if (size := self._packet_bytes(publication)) > self.max_packet_bytes:
                self._forget(identifier)
                forgotten.append(PacketTooLargeError(publication.topic, size, self.max_packet_bytes))
        self._to_repeat = deque(identifier for identifier in self._to_repeat if identifier in self._unacknowledged)
        return forgotten

    def acknowledge(self, identifier: int) -> None:
        """Note that the broker has acknowledged one; an identifier that is not in use is ignored."""
        if (publication := self._unacknowledged.pop(identifier, None)) is None:
            return
        del self._sent_at[identifier]
        if self._longest_taken is None or len(publication.data) > len(self._longest_taken.data):
            self._longest_taken = publication
        if identifier in self._to_repeat:
            self._to_repeat.remove(identifier)

    def repeat(self, now: float) -> list[bytes]:
        """Packets to send again `now`, as many as there is room for."""
        identifiers = [self._to_repeat.popleft() for _ in range(min(self.room(), len(self._to_repeat)))]
        self._sent_at.update(dict.fromkeys(identifiers, now))
        return [self._packet(identifier, duplicate=True) for identifier in identifiers]

    def send(self, publication: Publication, now: float) -> bytes:
        """The packet of a new publication, which is sent `now`.

        Raises:
            PacketTooLargeError: the broker does not take it; nothing is to be sent.
        """
        while True:
            self._last_identifier = self._last_identifier % LARGEST_IDENTIFIER + 1
            if self._last_identifier not in self._unacknowledged:
                break
        self._unacknowledged[self._last_identifier] = publication
        self._sent_at[self._last_identifier] = now
        packet = self._packet(self._last_identifier, duplicate=False)
        if len(packet) > self.max_packet_bytes:
            self._forget(self._last_identifier)
            raise PacketTooLargeError(publication.topic, len(packet), self.max_packet_bytes)
        return packet

    def _forget(self, identifier: int) -> None:
        del self._unacknowledged[identifier], self._sent_at[identifier]

    def _packet(self, identifier: int, *, duplicate: bool) -> bytes:
        publication = self._unacknowledged[identifier]
        return publication_packet(
            publication.topic,
            publication.data,
            identifier,
            retained=publication.retained,
            duplicate=duplicate,
            mqtt5=self._mqtt5,
        )

    def _packet_bytes(self, publication: Publication) -> int:
        return publication_bytes(publication.topic, len(publication.data), mqtt5=self._mqtt5)
