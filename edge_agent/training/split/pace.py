"""How many steps are under way at once: as many as hide the waiting for the helper, and no more. Pure."""

from collections import deque
from collections.abc import Callable
from typing import Final

REMEMBERED: Final = 16


class Pace:
    """Measures what a step takes here and at the helper, in seconds of its clock."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        """At most so many steps."""
        self.clock = clock
        self._most = most
        self._own = deque[float](maxlen=REMEMBERED)
        self._waits: dict[int, deque[float]] = {}

    def computed(self, seconds: float) -> None:
        """A step took the device's own processor so long, without any waiting."""
        self._own.append(seconds)

    def answered(self, leg: int, seconds: float) -> None:
        """A request, the step's `leg`-th, was answered after so long."""
        self._waits.setdefault(leg, deque(maxlen=REMEMBERED)).append(seconds)

    @property
    def in_flight(self) -> int:
        """Steps to have under way: 1 until one was measured, and where waiting takes less than half as long as
        computing: a pass that others overtake learns less than it saves.

        The shortest of the last waits counts. Others have waited here, for the device itself.
        """
        if not self._own:
            return 1
        own = sum(self._own) / len(self._own)
        waiting = sum(min(waits) for waits in self._waits.values())
        return min(self._most, max(1, round((own + waiting) / max(own, 1e-9))))
