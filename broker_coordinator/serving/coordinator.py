"""The coordinator without its network: batches of messages in, a journal transaction, publications out.

A batch is decided in order, committed in one transaction, and only then answered. Whoever delivered it acknowledges it
when `handle` has returned, and offers it again when `handle` raised.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from broker_coordinator.admission.admission import admit_all
from broker_coordinator.admission.authentication import AdmissionPolicy
from broker_coordinator.admission.decisions import (
    Accepted,
    BlobRequested,
    Decision,
    Enrolled,
    Message,
    Refused,
    Repeated,
    WeightsRequested,
)
from broker_coordinator.admission.fleet_view import DeviceState, FleetView, OverlayMap
from broker_coordinator.admission.norm_bound import NormQuantile
from broker_coordinator.admission.rate_limit import RateLimit
from broker_coordinator.aggregation.retention import NOTHING_FORGOTTEN, Forgettable, Retention, forgettable
from broker_coordinator.distribution.blob_store import BlobStore
from broker_coordinator.distribution.chunk_queue import ChunkQueue, Wanted
from broker_coordinator.distribution.packed_versions import PackedVersions
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.serving.replay import state_of
from broker_coordinator.serving.served_task import NextVersion, ServedTask, WaitingUpdate
from broker_coordinator.storage.change_counters import DEVICES, TASKS, read_change_counters
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal import Journal, JournalEntry, TasksChangedError
from broker_coordinator.storage.task_registry import StoredTask, TaskRegistry
from bundle_runtime.bundle_folder import Bundle
from fleet_host.log_lines import log_line
from fleet_protocol.chunks import chunk_count
from fleet_protocol.errors import Reason

UNVERIFIED_RECEIPT_INTERVAL_SECONDS = 5.0
"""Per device topic: a forger makes the coordinator publish no more often than this."""

MAX_UNVERIFIED_RECEIPTS_PER_INTERVAL = 500
"""Over all topics: inventing device names does not help the forger either."""

REFUSAL_LOG_INTERVAL_SECONDS = 10.0
"""Per reason. The database counts every refusal; the log says that there are some."""

NORMS_READ_AT_START = 500
"""Accepted updates from which the usual norm is found again after a restart."""

logger = logging.getLogger(__name__)


class Coordinator:
    """Serves the tasks in `journal`, to which `bundles` are added. `on_version` hears of each version that is made.

    Raises:
        ConfigurationError: a bundle is another than the one that its task is served with.
        JournalUnavailableError: the database can't be read.
    """

    def __init__(
        self,
        journal: Journal,
        bundles: Sequence[Bundle],
        speaker: MessageSigner,
        policy: AdmissionPolicy,
        *,
        retention: Retention = Retention(),  # noqa: B008 - a constant: it is frozen
        metrics: Metrics | None = None,
        on_version: Callable[[str, int], None] = lambda _task, _number: None,
    ) -> None:
        self._journal = journal
        self._devices = DeviceRegistry(journal.engine)
        self._registry = TaskRegistry(journal.engine)
        self._speaker = speaker
        self._policy = policy
        self._retention = retention
        self._metrics = metrics or Metrics()
        self._on_version = on_version
        self._bundles: dict[str, Bundle] = {}
        self._forgotten: dict[str, Forgettable] = {}
        self._revisions: dict[str, int] = {}
        self._chunk_queue = ChunkQueue()
        self._unverified_receipts = RateLimit(UNVERIFIED_RECEIPT_INTERVAL_SECONDS, MAX_UNVERIFIED_RECEIPTS_PER_INTERVAL)
        self._logged_refusals = RateLimit(REFUSAL_LOG_INTERVAL_SECONDS, len(Reason))
        self._outbox: deque[Publication] = deque()
        self._unannounced: dict[str, None] = {}
        for bundle in bundles:
            self._registry.publish(bundle)
        self._load()

    def tasks(self) -> list[str]:
        """The names of the tasks that are served."""
        return list(self._tasks)

    def handle(self, messages: Sequence[Message], now: float) -> None:
        """Decide on a batch, commit it, and queue the answers. `now` is in seconds on any one clock.

        Raises:
            JournalUnavailableError: nothing happened; offer the same messages again later.
        """
        try:
            self._handle_together(messages, now)
        except JournalUnavailableError:
            raise
        except Exception:  # a mistake of ours that one message brings out must not hold up the others
            logger.exception(log_line("batch_failed", messages=len(messages), first_topic=messages[0].topic))
            self._load()
            for message in messages if len(messages) > 1 else []:
                self.handle([message], now)

    def make_versions(self, now: float) -> None:
        """Make and commit every version for which enough updates wait, or of which the round is over.

        Raises:
            JournalUnavailableError: call again later; what was committed before stands.
        """
        try:
            for task in self._tasks.values():
                while made := task.next_version(now):
                    self._commit(task, made, now)
                if task.ask_everyone(now):
                    self._unannounced[task.description.task] = None
        except TasksChangedError:
            self._load()

    def reload_if_changed(self) -> None:
        """Take in what operators' commands have changed in the database. `handle` does so by itself.

        Raises:
            JournalUnavailableError: call again later.
        """
        found = read_change_counters(self._journal.engine)
        if found.get(TASKS) != self._revisions.get(TASKS):
            self._load()
        elif found.get(DEVICES) != self._revisions.get(DEVICES):
            self._load_devices()
            self._revisions = found

    def _commit(self, task: ServedTask, made: NextVersion, now: float) -> None:
        name, number = task.description.task, made.version.number
        self._journal.add_version(
            made.version, holds=made.holds, last_position=made.last_position, revision=self._revisions.get(TASKS, 0)
        )
        task.advance(made, now)
        self._known.tasks[name] = task.progress(self._known.tasks[name].norms)
        self._unannounced[name] = None
        self._metrics.count_version(name)
        self._metrics.show_task(task)
        logger.info(
            log_line(
                "version_made",
                task=name,
                version=number,
                updates=made.holds,
                median_staleness=made.median_staleness,
                mean_loss=made.mean_loss,
                weights=made.version.weights_hash[:16],
            )
        )
        self._on_version(name, number)
        allowed = forgettable(self._retention, task.description.aggregation, number)
        if allowed != (before := self._forgotten.get(name, NOTHING_FORGOTTEN)):
            self._journal.forget(name, allowed, before)
            self._forgotten[name] = allowed

    def announce_versions(self) -> None:
        """Queue the manifest of every task: the broker may have lost the retained one."""
        self._unannounced.update(dict.fromkeys(self._tasks))

    def publications(self, limit: int, now: float) -> list[Publication]:
        """Take at most `limit` messages that are to be published now: receipts, then manifests, then chunks."""
        taken: list[Publication] = []
        while self._outbox and len(taken) < limit:
            taken.append(self._outbox.popleft())
        while self._unannounced and len(taken) < limit:
            name = self._unannounced.popitem()[0]
            taken.append(self._speaker.manifest(name, self._tasks[name].manifest(self._known.devices_taking_part)))
        for wanted, number in self._chunk_queue.take(limit - len(taken), now):
            if content := self._find(wanted):
                taken.append(self._speaker.chunk(wanted, content, number))
        self._metrics.count_published(sum(len(publication.data) for publication in taken))
        return taken

    def next_due(self) -> float | None:
        """When `publications` or `make_versions` will next have something that they have not now, or None."""
        moments = [self._chunk_queue.next_due(), *(task.deadline() for task in self._tasks.values())]
        return min((moment for moment in moments if moment is not None), default=None)

    def _load(self) -> None:
        change_counters = read_change_counters(self._journal.engine)
        stored = self._registry.tasks()
        for each in stored:
            if each.name not in self._bundles:
                self._bundles[each.name] = self._registry.bundle(each.name)
        bundles = list(self._bundles.values())
        self._store = BlobStore(bundles, self._journal.weights_named)
        self._packed = PackedVersions(bundles, self._journal.weights_of)
        self._tasks = {each.name: self._load_task(each) for each in stored}
        self._last_position = self._journal.last_position()
        self._known = FleetView(
            self._journal.decided,
            tasks=OverlayMap({name: task.progress(self._usual_norms(task)) for name, task in self._tasks.items()}),
            highest_sequences=OverlayMap(self._journal.highest_sequences()),
            allowance=self._policy.allowance,
        )
        self._load_devices()
        self.announce_versions()
        self._revisions = change_counters

    def _load_task(self, stored: StoredTask) -> ServedTask:
        bundle, newest = self._bundles[stored.name], self._journal.newest_version(stored.name)
        assert newest is not None  # noqa: S101 - a task is published with its version 0
        key = self._policy.key
        state = state_of(self._journal, bundle.description, newest, key)
        task = ServedTask(bundle, newest, state, bundle.grid(), paused=stored.paused)
        for row in self._journal.waiting_updates(stored.name):
            task.waiting.append(WaitingUpdate(row.position, row.buffered(bundle.description.shapes, key), row.loss))
        self._metrics.show_task(task)
        return task

    def _usual_norms(self, task: ServedTask) -> NormQuantile | None:
        plan = task.description.aggregation
        if not plan.norm_quantile_factor:
            return None
        norms = self._journal.last_norms(task.description.task, NORMS_READ_AT_START)
        return NormQuantile(plan.norm_quantile).after_all(norms)

    def _load_devices(self) -> None:
        self._known.devices.clear()
        self._known.key_of.clear()
        for device in self._devices.devices():
            self._known.set_device(device)
        self._metrics.show_devices(self._known.devices.values())

    def _handle_together(self, messages: Sequence[Message], now: float) -> None:
        self.reload_if_changed()
        entry, branch, decisions = JournalEntry(), self._known.branch(now), list[Decision]()
        for decision in admit_all(messages, branch, self._policy):
            self._enter(decision, entry)
            decisions.append(decision)
        entry.devices.extend(self._known.devices_changed_in(branch))
        begun = time.perf_counter()
        self._journal.write(entry, self._last_position + 1)
        self._metrics.count_batch(
            decisions, sum(len(message.data) for message in messages), time.perf_counter() - begun
        )
        self._known.absorb(branch)
        for accepted in entry.accepted:
            self._last_position += 1
            task = self._tasks[accepted.header.task]
            task.waiting.append(WaitingUpdate(self._last_position, accepted.update, accepted.loss))
        for decision in decisions:
            self._answer(decision, now)
        self._show(entry)

    def _show(self, entry: JournalEntry) -> None:
        for name in {accepted.header.task for accepted in entry.accepted}:
            self._metrics.show_task(self._tasks[name])
        if entry.devices:
            self._metrics.show_devices(self._known.devices.values())

    def _enter(self, decision: Decision, entry: JournalEntry) -> None:
        match decision:
            case Accepted():
                entry.accepted.append(decision)
            case Refused(device, reason, verified=verified, burned_sequence=burned):
                entry.rejections[reason, device if device and verified else ""] += 1
                if burned is not None:
                    entry.refused.append(decision)
            case BlobRequested(device, wanted) | WeightsRequested(device, wanted) if self._find(wanted) is None:
                entry.rejections[Reason.WRONG_HASH, device.name] += 1

    def _answer(self, decision: Decision, now: float) -> None:
        match decision:
            case Accepted(device=name, envelope_digest=digest):
                self._send_receipt(name, digest)
            case Repeated(name, _, outcome):
                self._send_receipt(name, outcome.digest, outcome.reason, outcome.detail)
            case Enrolled(device, digest) if device.state is DeviceState.APPROVED:
                self._send_receipt(device.name, digest)
            case Enrolled(device, digest):
                self._send_receipt(
                    device.name, digest, Reason.UNKNOWN_KEY, f"{device.name} is recorded and awaits approval"
                )
            case BlobRequested(_, wanted, chunks) | WeightsRequested(_, wanted, chunks):
                if (content := self._find(wanted)) is not None:
                    every = range(chunk_count(len(content)))
                    known = [number for number in chunks if number in every] if chunks else every
                    self._chunk_queue.request(wanted, known, now)
            case Refused():
                self._answer_refused(decision, now)

    def _answer_refused(self, refused: Refused, now: float) -> None:
        if self._logged_refusals.allows(refused.reason, now):
            logger.warning(
                log_line("refused", reason=refused.reason.value, device=refused.device, detail=refused.detail)
            )
        if refused.device is None or not refused.answered:
            return
        if refused.verified or self._unverified_receipts.allows(refused.device, now):
            self._send_receipt(refused.device, refused.envelope_digest, refused.reason, refused.detail)

    def _send_receipt(self, device: str, digest: bytes, reason: Reason | None = None, detail: str = "") -> None:
        self._outbox.append(
            self._speaker.receipt(
                device,
                digest,
                reason=reason,
                detail=detail,
                highest_sequence=self._known.highest_sequence(device),
                newest_boot=self._known.newest_boot(device),
            )
        )

    def _find(self, wanted: Wanted) -> bytes | None:
        try:
            return self._store.blob(wanted) if isinstance(wanted, str) else self._packed.find(wanted)
        except JournalUnavailableError:
            return None  # whoever needs it asks again
