"""What the relay counts since it was started. Pure."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counters:
    """`passed` and `dropped` count frames, their bytes with headers; `opened`, `resumed` and `over` sessions."""

    frames_passed: int = 0
    bytes_passed: int = 0
    opened: int = 0
    resumed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Frames that were not passed on, by reason."""
    refused: Counter[str] = field(default_factory=Counter)
    """Signed messages that were not taken, and sessions that were not granted, by reason."""
    over: Counter[str] = field(default_factory=Counter)
    """By what has ended them."""
