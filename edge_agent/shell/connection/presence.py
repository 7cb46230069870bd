"""Says that the device is online, and so asks for manifests: a coordinator answers a presence with those of its tasks.

A retained manifest can be lost or replaced at the broker. Then the device would learn of no version until the next one.
"""

import asyncio
from collections.abc import Awaitable, Callable

FIRST_MANIFEST_SECONDS = 10.0
LAST_MANIFEST_SECONDS = 600.0
"""How long to wait for the manifests before asking again; doubles from first to last."""


class PresenceKeeper:
    """`publish` publishes the presence once; `lacks_manifest` says whether one that is subscribed to has not come."""

    def __init__(self, publish: Callable[[], Awaitable[None]], lacks_manifest: Callable[[], bool]) -> None:
        self._publish = publish
        self._lacks_manifest = lacks_manifest
        self._changed = asyncio.Event()
        self._is_due = False
        self._wait_seconds = FIRST_MANIFEST_SECONDS
        self._ask_at = 0.0

    def manifest_awaited(self) -> None:
        """The device has subscribed to one."""
        self._wait_seconds = FIRST_MANIFEST_SECONDS
        self._plan()
        self._changed.set()

    def publish_again(self) -> None:
        """What the presence says has changed."""
        self._is_due = True
        self._changed.set()

    async def keep(self) -> None:
        """Publish, and again when it changes, and less and less often while a manifest lacks; until cancelled.

        Raises:
            LinkDownError: from `publish`.
        """
        self._wait_seconds = FIRST_MANIFEST_SECONDS
        while True:
            self._is_due = False
            await self._publish()
            self._plan()
            await self._wait()

    def _plan(self) -> None:
        self._ask_at = asyncio.get_running_loop().time() + self._wait_seconds
        self._wait_seconds = min(2 * self._wait_seconds, LAST_MANIFEST_SECONDS)

    async def _wait(self) -> None:
        """No timer runs while no manifest lacks, except the one that was set before it came."""
        while not self._is_due:
            self._changed.clear()
            lacks = self._lacks_manifest()
            try:
                async with asyncio.timeout_at(self._ask_at if lacks else None):
                    await self._changed.wait()
            except TimeoutError:
                if self._lacks_manifest():
                    return
