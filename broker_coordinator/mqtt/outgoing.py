"""Publications on their way to the broker, each until it is acknowledged, and again after a lost connection. Pure."""

from collections import deque

from broker_coordinator.distribution.signed_messages import Publication
from broker_coordinator.mqtt.traffic import publication_packet

LARGEST_IDENTIFIER = 0xFFFF
"""Of an MQTT packet; 0 is none."""


class Outgoing:
    """At most `window` publications are under way, in packets of MQTT 5 if `mqtt5`, else 3.1.1."""

    def __init__(self, window: int, *, mqtt5: bool) -> None:
        self.window = window
        self._mqtt5 = mqtt5
        self._last_identifier = 0
        self._under_way: dict[int, Publication] = {}
        self._to_repeat: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._under_way)

    def room(self) -> int:
        """How many may be sent now, those that are to be repeated among them."""
        return self.window - len(self._under_way) + len(self._to_repeat)

    def connection_lost(self) -> None:
        """All that is under way is to be repeated on the next connection (MQTT 5, section 4.4)."""
        self._to_repeat = deque(self._under_way)

    def acknowledge(self, identifier: int) -> None:
        """Note what the broker has taken; it may name what is not under way."""
        if self._under_way.pop(identifier, None) and identifier in self._to_repeat:
            self._to_repeat.remove(identifier)

    def repeat(self) -> list[bytes]:
        """The packets that are to be sent again, as many as there is room for."""
        identifiers = [self._to_repeat.popleft() for _ in range(min(self.room(), len(self._to_repeat)))]
        return [self._packet(identifier, duplicate=True) for identifier in identifiers]

    def send(self, publication: Publication) -> bytes:
        """The packet of one more."""
        while True:
            self._last_identifier = self._last_identifier % LARGEST_IDENTIFIER + 1
            if self._last_identifier not in self._under_way:
                break
        self._under_way[self._last_identifier] = publication
        return self._packet(self._last_identifier, duplicate=False)

    def _packet(self, identifier: int, *, duplicate: bool) -> bytes:
        publication = self._under_way[identifier]
        return publication_packet(
            publication.topic,
            publication.data,
            identifier,
            retained=publication.retained,
            duplicate=duplicate,
            mqtt5=self._mqtt5,
        )
