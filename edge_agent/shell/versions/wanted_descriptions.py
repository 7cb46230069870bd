"""Fetches the descriptions of tasks that readings come for: without one, nobody knows what these are made of."""

import asyncio
import random

from edge_agent.core.version_choice import VersionUnavailableError
from edge_agent.shell.connection.link import LinkDownError
from edge_agent.shell.versions.version_follower import VersionFollower
from fleet_host.backoff import delay_seconds
from fleet_protocol.task_description import TaskDescription


class WantedDescriptions:
    """What is asked for and not here is fetched; whoever asks again hears of it then."""

    def __init__(self, versions: VersionFollower) -> None:
        self._versions = versions
        self._wanted: set[str] = set()
        self._asked = asyncio.Event()

    def description(self, task: str) -> TaskDescription | None:
        """The task's description; None until it is here."""
        if (description := self._versions.description(task)) is None:
            self._wanted.add(task)
            self._asked.set()
        return description

    async def run(self) -> None:
        """Fetch until cancelled. What is not to be had now is tried when it is asked for again, after a pause."""
        attempt = 0
        while True:
            await self._asked.wait()
            self._asked.clear()
            wanted, self._wanted = self._wanted, set()
            found = [await self._fetch(task) for task in wanted]
            attempt = 0 if all(found) else attempt + 1
            if attempt:
                await asyncio.sleep(delay_seconds(attempt, random.random()))  # noqa: S311 - jitter, not a secret

    async def _fetch(self, task: str) -> bool:
        try:
            await self._versions.fetch_description(task)
        except (VersionUnavailableError, LinkDownError):
            return False
        return True
