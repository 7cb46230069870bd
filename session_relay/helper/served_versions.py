"""The versions that a helper offers: the newest of each of its tasks, as manifests name them."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace

from edge_agent.core.version_choice import KnownVersion, NotAskedError, VersionUnavailableError
from edge_agent.shell.connection.link import LinkDownError
from edge_agent.shell.membership import Membership
from edge_agent.shell.versions.version_follower import ReadyVersion
from fleet_host.log_lines import log_line
from session_relay.helper.middles import is_same

logger = logging.getLogger(__name__)

REST_SECONDS = 60.0
"""Until a version is offered again that no process could load."""


class ServedVersions:
    """`changed` is called when a task is offered or withdrawn, with its version where it is a new one. `in_use` gives
    the versions whose files a process reads, or is about to.
    """

    def __init__(
        self,
        member: Membership,
        retry_seconds: float,
        *,
        changed: Callable[[ReadyVersion | None], None],
        in_use: Callable[[], Iterable[ReadyVersion]],
    ) -> None:
        self._member = member
        self._retry_seconds = retry_seconds
        self._changed = changed
        self._in_use = in_use
        self._ready: dict[str, ReadyVersion] = {}
        self._trouble: dict[str, str] = {}
        self._resting: dict[str, ReadyVersion] = {}
        """Versions that are not offered for a while, whatever happens meanwhile."""
        self._stirred = asyncio.Event()

    @property
    def ready(self) -> dict[str, ReadyVersion]:
        """By task."""
        return self._ready

    @property
    def trouble(self) -> dict[str, str]:
        """Why a task is not offered."""
        return self._trouble

    def look(self) -> None:
        """A manifest may have named another version, or what kept one away is over."""
        self._stirred.set()

    def withdraw(self, task: str, why: str) -> None:
        """Offer the task no more."""
        self._trouble[task] = why
        if self._ready.pop(task, None) is not None:
            self._changed(None)

    def loaded(self, version: ReadyVersion) -> None:
        """Its weights are in their file, whole: the next version is fetched as its difference from this one."""
        self._member.versions.hold(version)
        task = version.description.task
        if (ready := self._ready.get(task)) and is_same(ready, version):
            self._ready[task] = replace(ready, packed=None)

    def damaged(self, version: ReadyVersion, why: str) -> None:
        """Its weights came packed, and can't be unpacked: they are fetched whole."""
        self._member.versions.refuse_packed(version, why)
        self.withdraw(version.description.task, why)
        self.look()

    def rest(self, version: ReadyVersion, why: str) -> None:
        """It can't be computed here now: devices are better served by others for a while."""
        task = version.description.task
        self.withdraw(task, why)
        self._resting[task] = version
        asyncio.get_running_loop().call_later(REST_SECONDS, self._end_rest, task)

    def _end_rest(self, task: str) -> None:
        self._resting.pop(task, None)
        self.look()

    async def run(self) -> None:
        """Fetch what manifests name; again after a while where that fails. Until cancelled."""
        while True:
            self._stirred.clear()
            are_settled = [await self._follow(task) for task in self._member.tasks]
            try:
                async with asyncio.timeout(None if all(are_settled) else self._retry_seconds):
                    await self._stirred.wait()
            except TimeoutError:
                pass

    async def _follow(self, task: str) -> bool:
        """Have the newest known version ready; returns whether nothing is to be tried again."""
        known = self._member.database.known_version(task)
        if known is None or _is_known(self._ready.get(task), known) or _is_known(self._resting.get(task), known):
            return True
        try:
            version = await self._member.versions.ready_version(task, if_asked=False)
        except NotAskedError as error:
            self.withdraw(task, str(error))
            return True
        except (VersionUnavailableError, LinkDownError) as error:
            self.withdraw(task, str(error))
            logger.warning(log_line("version_unavailable", task=task, reason=error))
            return False
        if version.description.split is None:
            self.withdraw(task, f"{task} has no [split]: devices train it alone")
            return True
        self._trouble.pop(task, None)
        self._ready[task] = version
        self._changed(version)
        # One that is offered is not always the newest known: of another task, that may still be on its way.
        self._member.versions.forget_unused(self._member.tasks, [*self._ready.values(), *self._in_use()])
        logger.info(log_line("version_offered", task=task, version=version.number))
        return True


def _is_known(version: ReadyVersion | None, known: KnownVersion) -> bool:
    """Whether a version is the newest that is known."""
    if version is None:
        return False
    return (version.number, version.bundle, version.generation) == (known.version, known.bundle, known.generation)
