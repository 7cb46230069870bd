"""All tasks that this device learns among neighbours: their topics, and what is heard and said there."""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Sequence

from edge_agent.core.gossip.place_in_roster import is_newer
from edge_agent.core.gossip.status import GossipStatus
from edge_agent.core.version_choice import VersionUnavailableError
from edge_agent.shell.connection.identity import Identity
from edge_agent.shell.connection.link import Link, LinkLeftError
from edge_agent.shell.gossiping.preparing import Preparing
from edge_agent.shell.gossiping.task_gossip import TaskGossip
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.shell.versions.version_follower import ReadyVersion, VersionFollower
from edge_agent.worker.contract import GossipJob, GossipRound
from fleet_host.log_lines import log_line
from fleet_host.rate_limit import RateLimit
from fleet_protocol import topics
from fleet_protocol.errors import ProtocolError
from fleet_protocol.kinds import Roster

logger = logging.getLogger(__name__)

MOST_SPEAKERS = 256
"""Neighbours, over all tasks, whose messages and faults are counted one by one at a time."""
MESSAGE_SECONDS = 2.0
MESSAGES_AT_ONCE = 30
"""A neighbour's messages beyond one in so many seconds, and so many at once, are not looked at."""
SAY_AGAIN_SECONDS = 3600.0
"""What stays wrong with a neighbour is said once in this time."""
ANOTHER_BUNDLE = "the task has another bundle by now"
FLOOD = "flood"
"""The word for what is beyond that, among reasons."""


class Gossip:
    """`changed` is called when a task may train now that could not; `look` when there may be another manifest."""

    def __init__(
        self,
        fleet: str,
        tasks: Sequence[str],
        identity: Identity,
        database: DeviceDatabase,
        versions: VersionFollower,
        *,
        link: Link,
        look: Callable[[str], None],
    ) -> None:
        self.changed: Callable[[str], None] = lambda _task: None
        self._fleet = fleet
        self._names = tasks
        self._identity = identity
        self._database = database
        self._versions = versions
        self._link = link
        self._look_for_manifest = look
        self._tasks: dict[str, TaskGossip] = {}
        self._subscribed: set[str] = set()
        self._news = asyncio.Event()
        self._flood = RateLimit(MESSAGE_SECONDS, MOST_SPEAKERS, burst=MESSAGES_AT_ONCE)
        self._said = RateLimit(SAY_AGAIN_SECONDS, MOST_SPEAKERS)
        self._preparing = Preparing(tasks, database, versions, found=self._news.set)
        self._follow_tasks()

    def look_again(self) -> None:
        """There is a manifest that may be new, or the device was let in: what it needs is fetched."""
        self._preparing.look_again()

    def why_not(self, version: ReadyVersion) -> str | None:
        """Why nothing is trained from a version of a task with `[gossip]` now, in words; None where it is."""
        self._follow_tasks()
        self._news.set()
        gossip = self._tasks.get(version.description.task)
        if gossip is None or gossip.bundle != version.bundle:
            return ANOTHER_BUNDLE
        return gossip.why_not

    def needs_no_manifest(self, task: str) -> bool:
        """Whether a round need not ask which version is the newest: a roster that has come says that it is this one."""
        self._follow_tasks()
        return task in self._tasks and self._tasks[task].why_not is None

    def job(self, task: str, bundle: str) -> GossipJob:
        """What the next round of a bundle is told of neighbours.

        Raises:
            VersionUnavailableError: the task has another one by now.
        """
        gossip = self._tasks.get(task)
        if gossip is None or gossip.bundle != bundle or gossip.why_not is not None:
            raise VersionUnavailableError(ANOTHER_BUNDLE)
        return gossip.job()

    def commit(self, task: str, bundle: str, ended: GossipRound) -> bool:
        """Store what a round of a bundle has left, and tell neighbours; False where the task has another one by now, to
        which all samples are new.

        Raises:
            sqlite3.Error, OSError: the disk.
        """
        gossip = self._tasks.get(task)
        if gossip is None or gossip.bundle != bundle:
            return False
        gossip.commit(ended, self._now())
        for refused in ended.refused:
            self._say_refused(task, refused.neighbour, refused.reason, refused.words)
        own = gossip.talk.own
        logger.info(
            log_line(
                "gossip_round_ended",
                task=task,
                round=own.rounds,
                told=own.number if ended.told else "nothing",
                neighbours=len(own.neighbours),
                reason=ended.withheld or ended.diverged or "none",
            )
        )
        self._news.set()
        return True

    def take_roster(self, task: str, roster: Roster) -> None:
        """A verified roster has come."""
        if (gossip := self._tasks.get(task)) is None:
            if is_newer(self._database.rosters.read(task), roster):
                self._database.rosters.write(task, roster)  # for when the bundle is here
            return
        known = gossip.roster
        if not gossip.follow(roster):
            if known != roster:
                number, newest = roster.number, known.number if known else 0
                logger.warning(log_line("old_roster_ignored", task=task, number=number, known_number=newest))
            return
        why = gossip.why_not
        logger.info(
            log_line(
                "roster_followed",
                task=task,
                number=roster.number,
                devices=len(roster.members),
                neighbours=",".join(gossip.talk.neighbours) or "none",
                reason=why or "none",
            )
        )
        if roster.bundle != gossip.bundle:
            self._look_for_manifest(task)
        self._news.set()
        self.changed(task)

    def hear(self, topic: str, data: bytes) -> None:
        """Something was published where a neighbour speaks. Never raises for anything in it."""
        try:
            task, device = topics.gossip_of(topic)
        except ProtocolError:
            return
        if (gossip := self._tasks.get(task)) is None or device not in gossip.talk.neighbours:
            return  # on its way when it ceased to be one
        now = self._now()
        if not self._flood.allows((task, device), now):
            gossip.refused[FLOOD] += 1
            words = f"more than {MESSAGES_AT_ONCE} at once, and one each {MESSAGE_SECONDS:g} s"
            self._say_refused(task, device, FLOOD, words)
            return
        try:
            if gossip.hear(topic, device, data, now):
                logger.warning(log_line("state_put_back", task=task, life=gossip.talk.own.life, neighbour=device))
        except ProtocolError as error:
            gossip.refused[error.reason.value] += 1
            self._say_refused(task, device, error.reason.value, error.detail)
        self._news.set()

    async def keep(self) -> None:
        """Hear neighbours, and say what is due, for as long as a connection lasts.

        Raises:
            LinkDownError: it has ended.
            LinkLeftError: neighbours' messages are longer than it reads.
        """
        self._subscribed.clear()
        self._follow_tasks()
        for gossip in self._tasks.values():
            gossip.talk.connected()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._preparing.keep())
            group.create_task(self._speak())

    async def _speak(self) -> None:
        while True:
            self._news.clear()
            self._follow_tasks()
            await self._subscribe()
            for gossip in list(self._tasks.values()):
                await self._publish(gossip)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._next_due()):
                    await self._news.wait()

    @property
    def status(self) -> dict[str, GossipStatus]:
        """By task, as people and programs on the device see it."""
        complete = self._preparing.is_complete
        return {
            task: gossip.status(self._now(), is_complete=complete(task, gossip.bundle))
            for task, gossip in self._tasks.items()
        }

    def _follow_tasks(self) -> None:
        """Which tasks are learned among neighbours, as far as their bundles are here."""
        for task in self._names:
            known, description = self._database.known_version(task), self._versions.description(task)
            if known is None or description is None:
                continue
            before = self._tasks.get(task)
            if known.removed or description.gossip is None:
                if self._tasks.pop(task, None) is not None:
                    self._news.set()
            elif before is None or before.bundle != known.bundle:
                self._tasks[task] = TaskGossip(description, known.bundle, self._identity, self._database)
                self._news.set()

    async def _subscribe(self) -> None:
        if self._link.read_messages_of(max((each.most_message_bytes for each in self._tasks.values()), default=0)):
            raise LinkLeftError
        wanted = {topics.roster(self._fleet, task) for task in self._tasks}
        for task, gossip in self._tasks.items():
            wanted |= {topics.gossip(self._fleet, task, name) for name in gossip.talk.neighbours}
        for topic in self._subscribed - wanted:
            self._subscribed.discard(topic)
            await self._link.unsubscribe(topic)
        for topic in sorted(wanted - self._subscribed):
            self._subscribed.add(topic)
            await self._link.subscribe(topic)

    async def _publish(self, gossip: TaskGossip) -> None:
        topic = topics.gossip(self._fleet, gossip.task, self._identity.device)
        try:
            messages = gossip.to_publish(topic, self._now())
        except sqlite3.Error as error:
            logger.error(log_line("gossip_not_told", task=gossip.task, error=error))
            return
        for message in messages:
            await self._link.publish(topic, message)

    def _next_due(self) -> float | None:
        return min((due for each in self._tasks.values() if (due := each.talk.next_due) is not None), default=None)

    def _say_refused(self, task: str, neighbour: str, reason: str, words: str) -> None:
        if self._said.allows((task, neighbour, reason), self._now()):
            logger.warning(log_line("gossip_refused", task=task, neighbour=neighbour, reason=reason, detail=words))

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
