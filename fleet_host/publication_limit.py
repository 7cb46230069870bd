"""How long a packet the broker takes, as it has said or as it has shown. Pure: times are seconds on any one clock.

A broker of MQTT 3.1.1 can't say it, and one of MQTT 5 need not: it ends the connection on which more comes. The same
publication would end the next one, and everything else would wait behind it for ever.
"""

from dataclasses import dataclass

ENDS_THAT_SHOW = 3
"""So many connections in a row that ended while the same longest publication was on its way show that it can't pass."""

PROMPT_SECONDS = 2.0
"""A broker ends the connection when it has read how long the packet is. Where it ends later, the broker waits for
something else, as a cluster does that elects a leader; or the link is slow."""

LATE_END = 1 / 4
"""What such an end shows of a long packet, in prompt ones; of a short one it shows nothing."""

LONG_BYTES = 128 * 1024
"""A packet that takes seconds on a slow link. Brokers and services that limit packets take as much at least."""

HELD_BACK_SECONDS = 300.0
"""After that it is tried again: what ended those connections may have been something else."""


@dataclass(frozen=True, slots=True)
class OnItsWay:
    """The bytes of the longest packet that the broker has not acknowledged when a connection ends, and for how many
    `seconds` it was on its way; and of the longest that was `taken` on this connection. 0 for none.
    """

    longest: int = 0
    seconds: float = 0.0
    taken: int = 0


class PublicationLimit:
    """Learns from what was on its way when connections ended."""

    __slots__ = ("_announced", "_ends", "_held_back_until", "_suspected")

    def __init__(self) -> None:
        self._announced: int | None = None
        self._suspected = 0
        self._ends = 0.0
        self._held_back_until = 0.0

    def connected(self, announced: int | None) -> None:
        """A connection begins; `announced` is the broker's Maximum Packet Size in bytes, if it has said one."""
        self._announced = announced

    def maximum_bytes(self, now: float) -> int | None:
        """The longest packet that may be sent now; None where no limit is known."""
        if self._announced is not None:
            return self._announced
        return self._suspected - 1 if now < self._held_back_until else None

    def connection_ended(self, then: OnItsWay, now: float) -> int | None:
        """The connection broke; returns the bytes of a packet that has shown that it can't pass."""
        if then.taken >= self._suspected:
            self._ends = 0.0
        if not then.longest:
            return None
        is_prompt = then.seconds <= PROMPT_SECONDS
        if not is_prompt and then.longest < LONG_BYTES:
            return None
        ends = self._ends if then.longest == self._suspected else 0.0
        self._ends = ends + (1.0 if is_prompt else LATE_END)
        self._suspected = then.longest
        if self._ends < ENDS_THAT_SHOW:
            return None
        self._ends = ENDS_THAT_SHOW - (1.0 if is_prompt else LATE_END)  # after the wait, one more try shows it again
        self._held_back_until = now + HELD_BACK_SECONDS
        return then.longest
