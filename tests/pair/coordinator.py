"""The shipped coordinator over a journal in memory; it may be killed around each commit, or find its disk full."""

import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from enum import Enum
from functools import cache
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from broker_coordinator.admission.decisions import Message
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.distribution.signed_messages import MessageSigner
from broker_coordinator.serving.coordinator import Coordinator
from broker_coordinator.storage.database import IN_MEMORY, JournalUnavailableError, open_database
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal import Journal, JournalEntry
from broker_coordinator.storage.records import JournalledPayload
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle_folder import Bundle
from fleet_host.rate_limit import TokenBucket
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.keys import SigningKey, VerifyKey
from tests.pair.wire import Lane, OnWire
from tests.support.bundles import TASK, write_bundle
from tests.support.fleet import FLEET, SHARD

KEY = SigningKey(bytes(range(100, 132)))
ALLOWANCE = TokenBucket(interval_seconds=5.0, burst=3)
POLICY = AdmissionSettings(FLEET, SHARD, open_enrolment=True, maximum_devices=10, keys=(KEY,), allowance=ALLOWANCE)
MOST_PUBLICATIONS = 1000


class Accident(Enum):
    """What may happen to a process while it takes in a batch or makes versions."""

    KILLED_BEFORE_COMMIT = "all is written, nothing committed"
    KILLED_AFTER_COMMIT = "a batch is committed, no receipt made"
    KILLED_BEFORE_PUBLICATION = "it acknowledges, receipts are made, none is sent"
    DISK_FULL = "the commit fails, the process goes on"


class Killed(BaseException):
    """kill -9: no handler of the product's may stop it."""


@cache
def small_bundle() -> Bundle:
    """Two updates make a version, so that updates soon become stale."""
    plan = AggregationPlan(buffer_size=2, max_staleness=1)
    with tempfile.TemporaryDirectory() as folder:
        return write_bundle(Path(folder), aggregation=plan)


class KillableJournal(Journal):
    """The journal; `killed_after_commit` is whether the process dies as soon as a batch is committed."""

    killed_after_commit = False

    def write(self, entry: JournalEntry) -> int:
        """See `Journal`."""
        first_position = super().write(entry)
        if self.killed_after_commit:
            raise Killed
        return first_position


class PairedCoordinator:
    """What is in the database survives `restart`; nothing else does."""

    def __init__(self, journal_type: type[KillableJournal] = KillableJournal) -> None:
        self._journal_type = journal_type
        self._engine = open_database(IN_MEMORY)
        self._accident: Accident | None = None
        event.listen(self._engine, "commit", self._about_to_commit)
        self.restart()

    def restart(self) -> None:
        """Kill it, if it runs, and start it."""
        self._accident = None
        self._journal = self._journal_type(self._engine)
        self._coordinator = Coordinator(self._journal, [small_bundle()], MessageSigner(KEY, FLEET, SHARD), POLICY)

    def take_in(self, arrived: Sequence[OnWire], now: float, accident: Accident | None = None) -> bool:
        """Handle a batch; whether it is acknowledged."""
        messages = [Message(each.topic, each.data) for each in arrived]
        return self._attempt(lambda: self._coordinator.handle(messages, now), accident)

    def make_versions(self, now: float, accident: Accident | None = None) -> None:
        """Make what versions are due."""
        self._attempt(lambda: self._coordinator.make_versions(now), accident)

    def publish(self, lane: Lane, now: float) -> None:
        """Send what is queued. Only what is for one device travels: manifests are not what is tried here."""
        for said in self._coordinator.publications(MOST_PUBLICATIONS, now):
            if not said.retained:
                lane.send(OnWire(said.topic, said.data))

    def set_paused(self, paused: bool) -> None:
        """What an operator does to the task."""
        TaskRegistry(self._engine).set_paused(TASK, paused=paused)

    def approve(self, name: str, key: VerifyKey) -> None:
        """What an operator does for a device."""
        DeviceRegistry(self._engine).approve(name, key)

    def revoke(self, name: str, key: VerifyKey) -> None:
        """What an operator does against a device, known or not."""
        self.approve(name, key)
        DeviceRegistry(self._engine).revoke(name)

    def newest_version(self) -> int:
        """The number of the newest version."""
        return self._journal.newest_number(TASK)

    def applied(self) -> list[JournalledPayload]:
        """Every payload that is committed: what a start after a kill at this moment would find."""
        return list(self._journal.payloads())

    def _about_to_commit(self, _connection: object) -> None:
        if self._accident is Accident.KILLED_BEFORE_COMMIT:
            raise Killed
        if self._accident is Accident.DISK_FULL:
            raise OperationalError("COMMIT", None, sqlite3.OperationalError("database or disk is full"))

    def _attempt(self, action: Callable[[], None], accident: Accident | None) -> bool:
        self._accident = accident
        self._journal.killed_after_commit = accident is Accident.KILLED_AFTER_COMMIT
        try:
            action()
        except JournalUnavailableError:
            return False
        except Killed:
            self.restart()
            return False
        finally:
            self._accident = None
            self._journal.killed_after_commit = False
        if accident is Accident.KILLED_BEFORE_PUBLICATION:
            self.restart()
        return True
