"""The discrete-event clock: what happens next, in virtual seconds."""

import heapq
from collections.abc import Callable
from itertools import count

Action = Callable[[], None]


class EventQueue:
    """Runs actions in the order of their times; of equal times, the one that was planned first."""

    def __init__(self) -> None:
        self.now = 0.0
        self._planned: list[tuple[float, int, Action]] = []
        self._order = count()
        self._stopped = False

    def after(self, seconds: float, action: Action) -> None:
        """Plan `action` for `seconds` from now; at once where that is negative."""
        heapq.heappush(self._planned, (self.now + max(0.0, seconds), next(self._order), action))

    def run(self, until: float) -> None:
        """Run everything that is planned up to `until`, which is then the time, unless `stop` came first."""
        while self._planned and self._planned[0][0] <= until and not self._stopped:
            self.now, _, action = heapq.heappop(self._planned)
            action()
        if not self._stopped:
            self.now = until

    def stop(self) -> None:
        """Let the running action be the last one."""
        self._stopped = True
