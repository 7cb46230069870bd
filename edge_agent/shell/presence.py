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
        self._changed = asyncio.Event()
        self._is_due = False

    def connected(self) -> None:
        """A connection begins: what was heard before it counts no longer."""
        self._missing = set(self._tasks)

    def heard_of(self, task: str) -> None:
        """The manifest of the newest version that is known of a task has come."""
        self._missing.discard(task)
        if not self._missing:
            self._changed.set()

    def publish_again(self) -> None:
        """What the presence says has changed."""
        self._is_due = True
        self._changed.set()

    async def keep(self) -> None:
        """Publish, and again when it changes, and less and less often until every task was heard of; until cancelled.

        Raises:
            LinkDownError: from `publish`.
        """
        wait_seconds = FIRST_MANIFEST_SECONDS
        while True:
            self._is_due = False
            await self._publish()
            await self._wait(asyncio.get_running_loop().time() + wait_seconds)
            wait_seconds = min(2 * wait_seconds, LAST_MANIFEST_SECONDS)

    async def _wait(self, ask_again_at: float) -> None:
        with contextlib.suppress(TimeoutError):
            while not self._is_due:
                self._changed.clear()
                async with asyncio.timeout_at(ask_again_at if self._missing else None):
                    await self._changed.wait()
