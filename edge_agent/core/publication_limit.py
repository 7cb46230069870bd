"""How long a packet the broker takes, as it has said or as it has shown. Pure: times are seconds on any one clock.

A broker of MQTT 3.1.1 can't say it, and one of MQTT 5 need not: it ends the connection on which more comes. The same
publication would end the next one, and everything else that this device sends would wait behind it for ever.
"""

ENDS_THAT_SHOW = 3
"""So many connections in a row that ended while the same longest publication was on its way show that it can't pass."""

HELD_BACK_SECONDS = 300.0
"""After that it is tried again: what ended those connections may have been something else."""


class PublicationLimit:
    """Counts what is on its way when connections end."""

    __slots__ = ("_announced", "_ends", "_held_back_until", "_on_their_way", "_suspected")

    def __init__(self) -> None:
        self._announced: int | None = None
        self._on_their_way: list[int] = []
        self._suspected = 0
        self._ends = 0
        self._held_back_until = 0.0

    def connected(self, announced: int | None) -> None:
        """A connection begins; `announced` is the broker's Maximum Packet Size in bytes, if it has said one."""
        self._announced = announced
        self._on_their_way.clear()

    def maximum_bytes(self, now: float) -> int | None:
        """The longest packet that may be sent now; None where no limit is known."""
        if self._announced is not None:
            return self._announced
        return self._suspected - 1 if now < self._held_back_until else None

    def sent(self, packet_bytes: int) -> None:
        """A publication is on its way."""
        self._on_their_way.append(packet_bytes)

    def acknowledged(self, packet_bytes: int) -> None:
        """The broker has taken it."""
        if packet_bytes in self._on_their_way:
            self._on_their_way.remove(packet_bytes)
        if packet_bytes >= self._suspected:
            self._ends = 0

    def connection_ended(self, now: float) -> int | None:
        """The connection broke; returns the bytes of a publication that has shown that it can't pass."""
        longest = max(self._on_their_way, default=0)
        self._on_their_way.clear()
        if not longest:
            return None
        self._ends = self._ends + 1 if longest == self._suspected else 1
        self._suspected = longest
        if self._ends < ENDS_THAT_SHOW:
            return None
        self._ends = ENDS_THAT_SHOW - 1  # after the wait, one more try shows it again
        self._held_back_until = now + HELD_BACK_SECONDS
        return longest
