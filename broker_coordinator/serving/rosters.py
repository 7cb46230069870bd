"""Tells devices of each task that is learned by gossip who learns it, in a roster whose number counts up.

The broker tells which roster it retains, and when somebody replaces it. One that this database lacks, as it is an older
one, is counted past; one whose task is not, or no longer, learned by gossip is cleared. So none is repeated for devices
that come: it is long, and all would hear it. Times are seconds on any one clock.
"""

import logging
from collections.abc import Mapping

from sqlalchemy import Engine

from broker_coordinator.distribution.places import why_not_all
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.serving.announcements import Announcements
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.storage.roster_registry import Mark, RosterRegistry
from broker_coordinator.storage.stored_tasks import StoredTask
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.log_lines import log_line
from fleet_protocol import topics
from fleet_protocol.envelope import read_envelope
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.gossip_plan import GossipPlan
from fleet_protocol.keys import KeyRing, key_id
from fleet_protocol.kinds import ROSTER, Roster, decode_payload

LOOK_SECONDS = 1.0
"""Between two looks at whether a device was approved or revoked, at least."""
SECONDS_OF_DEVICE = 0.01
"""Likewise, for each device of the longest roster: each hears of every change in some 50 bytes for each of them."""

logger = logging.getLogger(__name__)


class Rosters:
    """`keys` are this coordinator's own, the newest first."""

    def __init__(
        self, engine: Engine, tasks: TaskRegistry, signer: MessageSigner, keys: KeyRing, metrics: Metrics
    ) -> None:
        self._registry = RosterRegistry(engine)
        self._tasks = tasks
        self._signer = signer
        self._newest = signer.key.verify_key
        self._keys = {key_id(key.verify_key): key.verify_key for key in keys}
        self._metrics = metrics
        self._announcements = Announcements()
        self._mark: Mark | None = None
        self._tasks_counter = -1
        self._plans: Mapping[str, tuple[StoredTask, GossipPlan]] = {}
        self._rosters: dict[str, Roster] = {}
        self._heard: dict[str, Roster] = {}
        self._newest_heard: dict[str, Roster] = {}
        self._look_at = 0.0

    def advance(self, now: float) -> None:
        """Take in what operators and enrolments have changed, and what the broker has told.

        Raises:
            JournalUnavailableError: call again later.
        """
        if now < self._look_at and not self._heard:
            return
        largest = max((len(each.members) for each in self._rosters.values()), default=0)
        self._look_at = now + max(LOOK_SECONDS, SECONDS_OF_DEVICE * largest)
        counter = self._registry.tasks_counter()
        has_news = counter != self._tasks_counter or bool(self._heard)
        if counter != self._tasks_counter:
            self._plans = self._read_plans()
        mark = self._registry.mark() if self._plans else None
        if mark == self._mark and not has_news:
            return
        for name in (self._rosters.keys() | self._heard.keys()) - self._plans.keys():
            self._clear(name)
        for name, (task, plan) in self._plans.items():
            self._settle(name, task, plan)
        self._tasks_counter, self._mark, self._heard = counter, mark, {}

    def receive(self, topic: str, data: bytes, now: float) -> None:
        """Take a message from a topic of rosters: this coordinator's own, or what has taken its place at the broker."""
        task = topic.rsplit("/", 1)[-1]
        if topic != topics.roster(self._signer.fleet, task) or not (data or task in self._rosters):
            return
        found = self._read(task, topic, data)
        newest = self._newest_heard.get(task, found)
        if found is not None and newest is not None and _order(found) >= _order(newest):
            self._newest_heard[task] = found
            if found != self._rosters.get(task):
                self._heard[task] = found
        elif found is not None or task in self._rosters:  # else a stranger's, on a topic that no device looks at
            self._announcements.repeat([task], now)

    def announce(self) -> None:
        """Queue that of every task: the broker may have lost the retained one."""
        for name in self._rosters:
            self._announcements.announce(name)

    def publications(self, limit: int, now: float) -> list[Publication]:
        """Take at most `limit` of those that are to be published now."""
        taken: list[Publication] = []
        while len(taken) < limit and (task := self._announcements.next_name(now)) is not None:
            taken.append(self._signer.roster(task, self._rosters.get(task)))
            self._announcements.done(task, now)
        return taken

    def next_due(self) -> float | None:
        """When `advance` or `publications` will next have something to look at, or None."""
        looks = [self._look_at] if self._plans else []
        return min((due for due in (self._announcements.next_due(), *looks) if due is not None), default=None)

    def _read_plans(self) -> dict[str, tuple[StoredTask, GossipPlan]]:
        found: dict[str, tuple[StoredTask, GossipPlan]] = {}
        for task in self._tasks.tasks():
            try:
                plan = self._tasks.description(task.name).gossip
            except ConfigurationError:  # it can't be read, which the intake says; or it was removed this moment
                continue
            if plan is not None:
                found[task.name] = task, plan
        return found

    def _settle(self, name: str, task: StoredTask, plan: GossipPlan) -> None:
        roster = self._registry.settle(task, plan, self._heard.get(name))
        self._metrics.show_roster(name, len(roster.members))
        if roster == self._rosters.get(name):
            return
        self._rosters[name] = roster
        self._announcements.announce(name)
        said = {"task": name, "generation": roster.generation, "number": roster.number, "devices": len(roster.members)}
        logger.info(log_line("roster_made", **said))
        for words in why_not_all(plan.topology, self._registry.candidates()):
            logger.warning(log_line("roster_unfit", task=name, reason=words))

    def _clear(self, name: str) -> None:
        self._rosters.pop(name, None)
        self._metrics.forget_roster(name)
        self._announcements.announce(name)

    def _read(self, task: str, topic: str, data: bytes) -> Roster | None:
        if not data:
            return None
        try:
            envelope = read_envelope(data, ROSTER.max_bytes)
            envelope.verify(self._keys.get(envelope.key_id, self._newest), topic)
            return decode_payload(envelope.payload, Roster)
        except ProtocolError as error:
            logger.warning(log_line("roster_ignored", task=task, error=error, remedy="see who may publish there"))
            return None


def _order(roster: Roster) -> tuple[int, int]:
    """Devices follow the highest."""
    return roster.generation, roster.number
