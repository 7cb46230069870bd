"""An event loop in which hours pass at once, and always in the same order."""

import asyncio
import selectors
from collections.abc import Coroutine


class NothingScheduledError(Exception):
    """No timer runs and nothing can wake the loop."""


class JumpingClock(selectors.DefaultSelector):
    """Where a loop would wait for its next timer, the time of that timer has come."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NothingScheduledError
        self.now += timeout
        return super().select(0)


def run(scenario: Coroutine[None, None, None], clock: JumpingClock | None = None) -> None:
    """Like `asyncio.run`. Not for anything that waits for a socket, a thread or another process."""
    clock = clock or JumpingClock()

    def new_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.SelectorEventLoop(clock)
        loop.time = lambda: clock.now
        return loop

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(scenario)
