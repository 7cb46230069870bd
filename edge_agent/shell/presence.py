"""Says that the device is online, and so asks for manifests: a coordinator answers a presence with those of its tasks.

A retained manifest can be lost or replaced at the broker. Then the device would learn of no version until the next one.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

FIRST_MANIFEST_SECONDS = 10.0
LAST_MANIFEST_SECONDS = 600.0
"""How long to wait for the manifests before asking again; doubles from first to last."""


class PresenceKeeper:
    """`publish` publishes the presence once."""

    def __init__(self, tasks: Sequence[str], publish: Callable[[], Awaitable[None]]) -> None:
        self._tasks = frozenset(tasks)
        self._publish = publish
        self._missing: set[str] = set()
        self._heard_of_all = asyncio.Event()

    def connected(self) -> None:
        """A connection begins: what was heard before it counts no longer."""
        self._missing = set(self._tasks)
        self._heard_of_all.clear()

    def heard_of(self, task: str) -> None:
        """The manifest of the newest version that is known of a task has come."""
        self._missing.discard(task)
        if not self._missing:
            self._heard_of_all.set()

    async def keep(self) -> None:
        """Publish, and again, less and less often, until every task was heard of.

        Raises:
            LinkDownError: from `publish`.
        """
        wait_seconds = FIRST_MANIFEST_SECONDS
        await self._publish()
        while not self._heard_of_all.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await self._heard_of_all.wait()
                    return
            wait_seconds = min(2 * wait_seconds, LAST_MANIFEST_SECONDS)
            await self._publish()
