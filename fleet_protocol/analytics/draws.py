"""The randomness that an answer needs, which comes in from outside."""

from typing import Protocol


class Draws(Protocol):
    """As `random.Random`; on a device `random.SystemRandom`, which nobody can foresee."""

    def random(self) -> float:
        """Evenly from [0, 1)."""
        ...

    def randrange(self, stop: int, /) -> int:
        """A whole number from 0 to `stop` - 1."""
        ...
