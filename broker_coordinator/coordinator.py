"""The coordinator without its network: batches of messages in, a journal transaction, publications out.

A batch is decided in order, committed in one transaction, and only then answered. Whoever delivered it acknowledges it
when `handle` has returned, and offers it again when `handle` raised.
"""

import logging
from collections import ChainMap, deque
from collections.abc import Sequence

from broker_coordinator.admission import AdmissionPolicy, admit, apply
from broker_coordinator.blob_publisher import BlobPublisher, Wanted
from broker_coordinator.bundle_store import Bundle, BundleStore, chunk_count
from broker_coordinator.database import JournalUnavailableError
from broker_coordinator.decisions import (
    Accepted,
    BlobRequested,
    Decision,
    Enrolled,
    Message,
    Refused,
    Repeated,
    WeightsRequested,
)
from broker_coordinator.device_registry import DeviceRegistry
from broker_coordinator.journal import Journal, JournalEntry
from broker_coordinator.knowledge import DeviceState, Knowledge
from broker_coordinator.log_line import log_line
from broker_coordinator.packed_versions import PackedVersions
from broker_coordinator.publications import Publication, Speaker
from broker_coordinator.rate_limit import RateLimit
from broker_coordinator.served_task import ServedTask, WaitingUpdate, version_zero
from broker_coordinator.strategies import remember
from fleet_protocol.errors import ConfigurationError, Reason

UNVERIFIED_RECEIPT_INTERVAL_SECONDS = 5.0
"""Per device topic: a forger makes the coordinator publish no more often than this."""

MAX_UNVERIFIED_RECEIPTS_PER_INTERVAL = 500
"""Over all topics: inventing device names does not help the forger either."""

REFUSAL_LOG_INTERVAL_SECONDS = 10.0
"""Per reason. The database counts every refusal; the log says that there are some."""

logger = logging.getLogger(__name__)


class Coordinator:
    """Serves the tasks of `bundles` out of `journal`.

    Raises:
        ConfigurationError: two bundles are of one task, or a bundle is another than the one the journal knows.
        JournalUnavailableError: the database can't be read.
    """

    def __init__(self, journal: Journal, bundles: Sequence[Bundle], speaker: Speaker, policy: AdmissionPolicy) -> None:
        self._journal = journal
        self._registry = DeviceRegistry(journal.engine)
        self._bundles = list(bundles)
        self._speaker = speaker
        self._policy = policy
        self._store = BundleStore(self._bundles, journal.weights_named)
        self._packed = PackedVersions(self._bundles, journal.weights_of)
        self._blob_publisher = BlobPublisher()
        self._unverified_receipts = RateLimit(UNVERIFIED_RECEIPT_INTERVAL_SECONDS, MAX_UNVERIFIED_RECEIPTS_PER_INTERVAL)
        self._logged_refusals = RateLimit(REFUSAL_LOG_INTERVAL_SECONDS, len(Reason))
        self._outbox: deque[Publication] = deque()
        self._unannounced: dict[str, None] = {}
        self._add_new_tasks()
        self._load()

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

    def make_versions(self) -> None:
        """Make and commit every version for which enough updates wait.

        Raises:
            JournalUnavailableError: call again later; what was committed before stands.
        """
        for task in self._tasks.values():
            while made := task.next_version():
                self._journal.add_version(made.version, holds=made.holds, last_position=made.last_position)
                task.advance(made)
                self._unannounced[task.description.task] = None
                logger.info(
                    log_line(
                        "version_made",
                        task=task.description.task,
                        version=made.version.number,
                        updates=made.holds,
                        median_staleness=made.median_staleness,
                        weights=made.version.weights_hash[:16],
                    )
                )

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
            taken.append(self._speaker.manifest(name, self._tasks[name].manifest()))
        for wanted, number in self._blob_publisher.take(limit - len(taken), now):
            if content := self._find(wanted):
                taken.append(self._speaker.chunk(wanted, content, number))
        return taken

    def next_publication_due(self) -> float | None:
        """When `publications` will next have something that it has not now, or None."""
        return self._blob_publisher.next_due()

    def _add_new_tasks(self) -> None:
        known = self._journal.bundles()
        for bundle in self._bundles:
            name = bundle.description.task
            if known.setdefault(name, bundle.hash) != bundle.hash:
                raise ConfigurationError(
                    f"task {name}: the bundle is {bundle.hash[:16]}…, but the database has versions of (or the"
                    f" configuration lists also) {known[name][:16]}…; give a changed task a new name"
                )
            if self._journal.newest_version(name) is None:
                self._journal.add_task(bundle.hash, version_zero(bundle))

    def _load(self) -> None:
        self._tasks: dict[str, ServedTask] = {}
        for bundle in self._bundles:
            name, shapes = bundle.description.task, bundle.description.shapes
            newest = self._journal.newest_version(name)
            assert newest is not None  # noqa: S101 - _add_new_tasks has seen to it
            plan = bundle.description.aggregation
            held = (
                self._journal.held_updates(name) if plan.strategy == "ef21" else self._journal.newest_held_updates(name)
            )
            updates = (row.buffered(shapes, self._policy.key) for row in held)
            remembered = remember({}, updates, bundle.description.parameter_count, plan)
            task = ServedTask(bundle, newest, newest.state(bundle.description.parameters, remembered), bundle.grid())
            task.waiting.extend(
                WaitingUpdate(row.position, row.buffered(shapes, self._policy.key))
                for row in self._journal.waiting_updates(name)
            )
            self._tasks[name] = task
        self._last_position = self._journal.last_position()
        self._known = Knowledge(
            self._journal.decided,
            tasks=ChainMap({name: task.progress() for name, task in self._tasks.items()}),
            highest_sequences=ChainMap(self._journal.highest_sequences()),
        )
        self._load_devices()

    def _load_devices(self) -> None:
        self._devices_revision = self._registry.revision()
        self._known.devices.clear()
        self._known.key_of.clear()
        for device in self._registry.devices():
            self._known.set_device(device)

    def _handle_together(self, messages: Sequence[Message], now: float) -> None:
        if self._registry.revision() != self._devices_revision:
            self._load_devices()
        entry, branch, decisions = JournalEntry(), self._known.branch(), list[Decision]()
        for message in messages:
            decision = admit(message, branch, self._policy)
            apply(decision, branch)
            self._enter(decision, entry)
            decisions.append(decision)
        entry.devices.extend(self._known.devices_changed_in(branch))
        self._journal.write(entry, self._last_position + 1)
        self._known.absorb(branch)
        for accepted in entry.accepted:
            self._last_position += 1
            self._tasks[accepted.header.task].waiting.append(WaitingUpdate(self._last_position, accepted.update))
        for decision in decisions:
            self._answer(decision, now)

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
                    every = range(chunk_count(content))
                    known = [number for number in chunks if number in every] if chunks else every
                    self._blob_publisher.request(wanted, known, now)
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
