"""What the relay counts since it was started. Pure."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from fleet_protocol.errors import Reason
from fleet_protocol.kinds import SessionReason
from fleet_protocol.sessions.secrecy import Direction

SENDERS: Final = {Direction.FROM_DEVICE: "device", Direction.FROM_HELPER: "helper"}
OTHER: Final = "other"
_KNOWN: Final = frozenset(reason.value for reasons in (Reason, SessionReason) for reason in reasons)


@dataclass(slots=True)
class Counters:
    """`passed` and `dropped` count frames, their bytes with headers; `opened`, `resumed` and `over` sessions."""

    frames_passed: int = 0
    bytes_passed: Counter[str] = field(default_factory=Counter)
    """By who sent them, as in `SENDERS`."""
    opened: int = 0
    resumed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Frames that were not passed on, by reason."""
    refused: Counter[str] = field(default_factory=Counter)
    """Signed messages that were not taken, and sessions that were not granted, by reason."""
    over: Counter[str] = field(default_factory=Counter)
    """By what has ended them."""

    def count_refusal(self, reason: str) -> None:
        """Count something that was refused; a reason that a helper has made up counts as `other`."""
        self.refused[str(reason) if reason in _KNOWN else OTHER] += 1
