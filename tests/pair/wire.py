"""A wire that promises nothing: what is on it may be lost, repeated, overtaken, or come again much later."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum


class Direction(Enum):
    """Which way a message travels."""

    UP = "to the coordinator"
    DOWN = "to a device"


class Fault(Enum):
    """What may happen to a message."""

    LOSE = "lose"
    REPEAT = "repeat"
    REPLAY = "deliver an old one again"


@dataclass(frozen=True, slots=True)
class OnWire:
    """One message and its topic."""

    topic: str
    data: bytes


@dataclass(slots=True)
class Lane:
    """One direction. `travelling` has not arrived yet; `ever` is all that was ever sent. Any index names a message."""

    travelling: list[OnWire] = field(default_factory=list)
    ever: list[OnWire] = field(default_factory=list)

    def send(self, message: OnWire) -> None:
        """Let a message travel."""
        self.travelling.append(message)
        self.ever.append(message)

    def take(self, picks: Sequence[int]) -> list[OnWire]:
        """Let messages arrive in the order of `picks`, which may be any."""
        return [self.travelling.pop(pick % len(self.travelling)) for pick in picks[: len(self.travelling)]]

    def take_all(self) -> list[OnWire]:
        """Let everything arrive, in the order in which it was sent."""
        return self.take([0] * len(self.travelling))

    def put_back(self, messages: Sequence[OnWire]) -> None:
        """They arrived and were not acknowledged, so they come again."""
        self.travelling += messages

    def suffer(self, fault: Fault, pick: int) -> None:
        """Let a fault happen to some message, if there is one."""
        among = self.ever if fault is Fault.REPLAY else self.travelling
        if not among:
            return
        if fault is Fault.LOSE:
            among.pop(pick % len(among))
        else:
            self.travelling.append(among[pick % len(among)])
