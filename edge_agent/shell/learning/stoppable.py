"""Work that is stopped when something speaks against it, and looked at from time to time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class StoppedError(Exception):
    """The work was cancelled before its end; says why."""


async def run_unless(
    work: Coroutine[Any, Any, Result], why_stop: Callable[[], str | None], *, every_seconds: float
) -> Result:
    """The result of `work`, which is cancelled as soon as `why_stop` gives a reason; it is asked `every_seconds`.

    Raises:
        StoppedError: with that reason, once the work has cleaned up.
        Exception: whatever `work` raises.
    """
    running = asyncio.ensure_future(work)
    try:
        while not running.done():
            await asyncio.wait({running}, timeout=every_seconds)
            if not running.done() and (reason := why_stop()):
                raise StoppedError(reason)
        return running.result()
    finally:
        if not running.done():
            running.cancel()
            await asyncio.wait({running})
