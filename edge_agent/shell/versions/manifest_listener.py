"""Hears of a task's versions while one is needed, and takes the retained manifest when a round or a prediction begins.

A device that sleeps has no such subscription: a fleet makes a version every few minutes, and wakes a few times a day.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Protocol

from fleet_protocol import topics

MANIFEST_SECONDS = 15.0
"""Longest wait for a manifest before a round begins from the version that is known. The retained one comes at once;
where it is lost, the coordinator's comes after `presence.FIRST_MANIFEST_SECONDS`."""
SUBSCRIBE_AGAIN_SECONDS = 5.0
"""Between two subscriptions to a manifest that is subscribed to."""
RENEW_SECONDS = 3600.0
"""A manifest that has not come for so long is subscribed to again: one that was dropped on its way, at QoS 0, is
retained, and comes then. Else a device whose own update made the version would wait for it for ever."""
PREDICTION_SECONDS = 3600.0
"""A device that only predicts looks for a newer version this often."""


class Subscriptions(Protocol):
    """The link, as far as a listener needs it. Both raise LinkDownError."""

    async def subscribe(self, topic_filter: str) -> None:
        """Receive what is published there from now on, and what is retained."""
        ...

    async def unsubscribe(self, topic_filter: str) -> None:
        """Receive it no longer."""
        ...


class ManifestListener:
    """The subscriptions to manifests, one for each task that needs it now.

    `is_needed` says of a task whether every new version counts. `awaited` is called when a manifest is waited for.
    """

    def __init__(
        self,
        fleet: str,
        tasks: Sequence[str],
        subscriptions: Subscriptions,
        *,
        is_needed: Callable[[str], bool],
        awaited: Callable[[], None],
    ) -> None:
        self._topics = {task: topics.manifest(fleet, task) for task in tasks}
        self._subscriptions = subscriptions
        self._is_needed = is_needed
        self._awaited = awaited
        self._connected = False
        self._subscribed: set[str] = set()
        self._asked: set[str] = set()
        self._to_look_at: set[str] = set()
        self._to_subscribe_again: set[str] = set()
        self._subscribed_at: dict[str, float] = {}
        self._heard = {task: asyncio.Event() for task in tasks}
        self._heard_at: dict[str, float] = {}
        self._changed = asyncio.Event()

    @property
    def lacks_any(self) -> bool:
        """Whether a manifest has not come since it was subscribed to."""
        return any(not self._heard[task].is_set() for task in self._subscribed)

    def heard_of(self, task: str) -> None:
        """The manifest of the newest version that is known has come."""
        if task in self._subscribed:  # not one that was still on its way when it ended
            self._heard[task].set()
        self._to_look_at.discard(task)
        self._heard_at[task] = asyncio.get_running_loop().time()
        self.look_again()

    def look_again(self) -> None:
        """Which tasks need their manifests may have changed."""
        self._changed.set()

    def look(self, task: str) -> None:
        """There is news of a task: hear of its newest version once. Where it is subscribed to, what is retained comes
        again: a manifest that could not be stored, as on a full disk, is not repeated otherwise.
        """
        self._to_look_at.add(task)
        now = asyncio.get_running_loop().time()
        if task in self._subscribed and now - self._subscribed_at.get(task, now) >= SUBSCRIBE_AGAIN_SECONDS:
            self._to_subscribe_again.add(task)
        self.look_again()

    async def take(self, task: str) -> None:
        """Return when the manifest that is retained now has come, or will not: without a connection, at once."""
        if not self._connected:
            return
        self._asked.add(task)
        self.look_again()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MANIFEST_SECONDS):
                    await self._heard[task].wait()
        finally:
            self._asked.discard(task)
            self.look_again()

    async def take_to_predict(self, task: str) -> None:
        """The same, where the last one came more than `PREDICTION_SECONDS` ago."""
        now = asyncio.get_running_loop().time()
        if now - self._heard_at.get(task, -PREDICTION_SECONDS) >= PREDICTION_SECONDS:
            self._heard_at[task] = now  # one that does not come delays no other prediction
            await self.take(task)

    async def keep(self) -> None:
        """Subscribe and unsubscribe as needed, for as long as a connection lasts.

        Raises:
            LinkDownError: it has ended.
        """
        self._connected = True
        self._to_look_at.update(self._topics)  # who was away may have missed an invitation
        try:
            while True:
                self._changed.clear()
                for task in self._topics:
                    await self._follow(task)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(self._renew_at()):
                        await self._changed.wait()
        finally:
            self._connected = False
            self._subscribed.clear()
            for heard in self._heard.values():
                heard.clear()

    def _renew_at(self) -> float | None:
        return min((self._last_news(task) + RENEW_SECONDS for task in self._subscribed), default=None)

    def _is_to_be_renewed(self, task: str) -> bool:
        now = asyncio.get_running_loop().time()
        return task in self._subscribed and now >= self._last_news(task) + RENEW_SECONDS

    def _last_news(self, task: str) -> float:
        """When it last came, or was last subscribed to."""
        return max(self._subscribed_at[task], self._heard_at.get(task, 0.0))

    async def _follow(self, task: str) -> None:
        wanted = task in self._asked | self._to_look_at or self._is_needed(task)
        again = task in self._to_subscribe_again or self._is_to_be_renewed(task)
        self._to_subscribe_again.discard(task)
        if wanted is (task in self._subscribed) and not (wanted and again):
            return
        self._heard[task].clear()
        if wanted:
            self._subscribed_at[task] = asyncio.get_running_loop().time()
            self._subscribed.add(task)
            self._awaited()
            await self._subscriptions.subscribe(self._topics[task])
        else:
            self._subscribed.discard(task)
            await self._subscriptions.unsubscribe(self._topics[task])
