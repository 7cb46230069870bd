"""Fetches what a device needs of a task that is learned among neighbours while there is somebody who has it.

Of other tasks it fetches `task.json`, which says that they are none; the rest of those comes with a round.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence

from edge_agent.core.version_choice import VersionUnavailableError
from edge_agent.shell.connection.link import LinkDownError
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.shell.versions.version_follower import VersionFollower
from fleet_host.backoff import delay_seconds


class Preparing:
    """`found` is called once all files of a task that is learned among neighbours are here."""

    def __init__(
        self,
        tasks: Sequence[str],
        database: DeviceDatabase,
        versions: VersionFollower,
        *,
        found: Callable[[], object],
    ) -> None:
        self._tasks = tasks
        self._database = database
        self._versions = versions
        self._found = found
        self._complete: dict[str, str] = {}
        self._news = asyncio.Event()

    def is_complete(self, task: str, bundle: str) -> bool:
        """Whether all files of the task's bundle are here."""
        return self._complete.get(task) == bundle

    def look_again(self) -> None:
        """There is a manifest that may be new, or the device was let in."""
        self._news.set()

    async def keep(self) -> None:
        """Fetch what lacks, for as long as a connection lasts; what can't be had is tried again, ever less often."""
        attempt = 0
        while True:
            self._news.clear()
            found = [await self._prepare(task) for task in self._tasks]
            attempt = 0 if all(found) else attempt + 1
            pause = delay_seconds(attempt, random.random()) if attempt else None  # noqa: S311 - jitter, not a secret
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._news.wait()

    async def _prepare(self, task: str) -> bool:
        """False where something lacks that may come."""
        known = self._database.known_version(task)
        if known is None or known.removed or not self._database.is_enrolled() or self.is_complete(task, known.bundle):
            return True
        try:
            await self._versions.fetch_description(task)
            description = self._versions.description(task)
            if description is None or description.gossip is None:
                self._complete[task] = known.bundle
                return True
            version = await self._versions.ready_version(task)
        except (VersionUnavailableError, LinkDownError):
            return False
        self._complete[task] = version.bundle
        self._found()
        return True
