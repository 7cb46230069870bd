"""Virtual time: a clock that only grows, and a wall clock beside it that somebody sets forwards and back."""

import selectors
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from unittest.mock import patch

from edge_agent.shell.host.local_events import LocalEvents
from tests.support.jumping_clock import JumpingClock

MOST_TURNS_AT_ONCE = 20_000
"""Of the event loop, without any time passing between them."""


class SpinningError(AssertionError):
    """Something keeps the processor busy, and no time passes."""


class MonthClock(JumpingClock):
    """`now` is in seconds since the start, whatever the wall clock shows."""

    def __init__(self, wall: float) -> None:
        super().__init__()
        self.turns = 0
        """Of the event loop, so far."""
        self._ahead = wall
        self._turns_at_once = 0

    def wall(self) -> float:
        """Seconds since 1970, as the machine believes."""
        return self.now + self._ahead

    def set_wall(self, wall: float) -> None:
        """The network's time has come, or the battery of the clock is empty."""
        self._ahead = wall - self.now

    def shift_wall(self, seconds: float) -> None:
        """The wall clock is wrong from now on by so much more."""
        self._ahead += seconds

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        self._turns_at_once = 0 if timeout else self._turns_at_once + 1
        if timeout is None or self._turns_at_once > MOST_TURNS_AT_ONCE:
            raise SpinningError(f"nothing is planned, or {MOST_TURNS_AT_ONCE} turns passed at second {self.now:.0f}")
        self.now += timeout
        return []  # nobody is at any socket: the kernel need not be asked half a million times


@contextmanager
def machine_shows(clock: MonthClock) -> Iterator[None]:
    """Whoever asks the machine for the time is told that of `clock`."""
    localtime = time.localtime
    events = partial(LocalEvents, now=lambda: datetime.fromtimestamp(clock.wall()))
    with ExitStack() as patched:
        for target, replacement in {
            "time.time": clock.wall,
            "time.monotonic": lambda: clock.now,
            "time.localtime": lambda seconds=None: localtime(clock.wall() if seconds is None else seconds),
            "edge_agent.shell.agent.LocalEvents": events,
        }.items():
            patched.enter_context(patch(target, replacement))
        yield
