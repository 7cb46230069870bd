"""The shipped coordinator on its database, in virtual time: killed, held up by a full disk, put back to yesterday."""

import asyncio
import shutil
import sqlite3
from concurrent.futures import Executor, Future
from contextlib import closing
from pathlib import Path

from broker_coordinator.admission.decisions import Message
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.commands.verify import verify_versions
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.records import JournalledPayload
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle
from fleet_host.rate_limit import TokenBucket
from fleet_protocol import topics
from tests.month.clock import MonthClock
from tests.month.network import Network
from tests.support.bench import KEY, Bench
from tests.support.fleet import FLEET, SHARD

BATCH_SECONDS = 0.1
FULL_DISK_SECONDS = 60.0
"""Between two tries while the database can't be written."""
MOST_PUBLICATIONS = 1000

SETTINGS = AdmissionSettings(
    FLEET,
    SHARD,
    open_enrolment=True,
    maximum_devices=10,
    keys=(KEY,),
    allowance=TokenBucket(5.0, 20),
    chunk_allowance=TokenBucket(1.0, 500),
    repeat_allowance=TokenBucket(2.0, 50),
)


class AtOnce(Executor):
    """In place of the thread that makes files: virtual time would not wait for one."""

    def submit(self, function, /, *arguments, **named):
        made: Future = Future()
        made.set_result(function(*arguments, **named))
        return made


class MonthCoordinator(Bench):
    """What arrives waits in the broker's session until a batch of it is committed, whatever becomes of the process."""

    def __init__(self, folder: Path, clock: MonthClock, network: Network, bundles: list[Bundle]) -> None:
        self._clock = clock
        self._network = network
        self._waiting: list[Message] = []
        self._runs = False
        self._planned: asyncio.TimerHandle | None = None
        self._copy = folder / "yesterday.db"
        self.full_disks = 0
        network.coordinator = self._arrive
        super().__init__(folder / "coordinator.db", None, SETTINGS)
        for bundle in bundles:
            self.registry.publish(bundle)
        self.start()

    @property
    def registry(self) -> TaskRegistry:
        """For what operators do."""
        return TaskRegistry(self.journal.engine)

    def start(self) -> None:
        """A process starts, and asks the broker which versions devices know."""
        if self._runs:
            self.kill()
        self.restart()
        self._runs = True
        now = self._clock.now
        self.coordinator.check_manifests()
        self.coordinator.announce_all()
        self.coordinator.subscribed_to_manifests(now)
        for topic, data in self._network.retained.items():
            if topic.startswith(topics.manifest(FLEET, "")):
                self.coordinator.receive_manifest(Message(topic, data), now)
        self._plan(BATCH_SECONDS)

    def kill(self) -> None:
        """It ends, with whatever it has in memory."""
        self._runs = False
        if self._planned is not None:
            self._planned.cancel()
            self._planned = None

    def copy(self) -> None:
        """The operator's backup of the day, as docs/operating.md has it made."""
        self._copy.unlink(missing_ok=True)
        with closing(sqlite3.connect(self.database)) as source, closing(sqlite3.connect(self._copy)) as target:
            source.backup(target)

    def put_back(self) -> None:
        """Yesterday's copy takes the database's place."""
        self.kill()
        self.journal.close()
        for suffix in ("-wal", "-shm"):
            Path(f"{self.database}{suffix}").unlink(missing_ok=True)
        shutil.copy(self._copy, self.database)
        self.start()

    def accepted(self) -> list[JournalledPayload]:
        """All that is committed."""
        return list(self.journal.payloads())

    def newest_version(self, task: str) -> int:
        """The number of a task's newest version."""
        return self.journal.newest_number(task)

    def first_difference(self, task: str) -> str | None:
        """Between the versions and what the journal says they are made of; None where they are the same."""
        return verify_versions(self.journal, task, keys=(KEY,)).difference

    def _arrive(self, topic: str, data: bytes) -> None:
        self._waiting.append(Message(topic, data))
        self._plan(BATCH_SECONDS)

    def _plan(self, seconds: float) -> None:
        if not self._runs:
            return
        loop = asyncio.get_running_loop()
        if self._planned is not None:
            seconds = min(seconds, self._planned.when() - loop.time())
            self._planned.cancel()
        self._planned = loop.call_later(seconds, self._work)

    def _work(self) -> None:
        self._planned = None
        coordinator, now = self.coordinator, self._clock.now
        try:
            if self._waiting and not coordinator.is_checking_manifests(now):
                coordinator.handle(self._waiting, now)
                self._waiting = []
            coordinator.make_versions(now)
        except JournalUnavailableError:
            self.full_disks += 1
            self._plan(FULL_DISK_SECONDS)
            return
        for said in coordinator.publications(MOST_PUBLICATIONS, now):
            self._network.publish(said.topic, said.data, retained=said.retained)
        if self._waiting:
            self._plan(BATCH_SECONDS)
        elif (due := coordinator.next_due()) is not None:
            self._plan(max(BATCH_SECONDS, due - now))
