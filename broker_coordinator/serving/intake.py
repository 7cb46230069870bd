"""Takes messages in: verifies and admits a batch, journals it in one transaction, and only then writes its receipts.

What it measures staleness against comes from the journal at each batch; within the batch it is predicted.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from broker_coordinator.admission.admission import Admission
from broker_coordinator.admission.consumer import JournalledConsumer
from broker_coordinator.admission.decisions import (
    Accepted,
    Decision,
    Enrolled,
    FileRequested,
    MaskReplied,
    Message,
    PresenceSeen,
    Refused,
)
from broker_coordinator.admission.fleet_view import Device, DeviceState, FleetView, TaskProgress
from broker_coordinator.admission.invited import InvitationState
from broker_coordinator.admission.participation import Participation
from broker_coordinator.admission.shares import RecentDevices, window
from broker_coordinator.aggregation.buffer_size import Participants
from broker_coordinator.consumers import version_consumer
from broker_coordinator.distribution.signed_messages import MessageSigner, Publication
from broker_coordinator.serving.answers import Receipts
from broker_coordinator.serving.lost_versions import LostVersions
from broker_coordinator.serving.metrics import RECEIPT, Metrics
from broker_coordinator.serving.newcomers import Newcomers
from broker_coordinator.serving.other_shards import OtherShards
from broker_coordinator.serving.strays import Strays
from broker_coordinator.serving.twins import Twins
from broker_coordinator.serving.unserved_tasks import UnservedTasks
from broker_coordinator.serving.waiting import DecodedBatch, DecodedBatches, WaitingPayload
from broker_coordinator.storage.change_counters import (
    ARRIVALS,
    CLUSTERS,
    COHORTS,
    DEVICES,
    ENROLMENTS,
    HELPERS,
    QUERIES,
    TASKS,
)
from broker_coordinator.storage.cluster_registry import ClusterRegistry
from broker_coordinator.storage.cohort_registry import CohortRegistry
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.helper_registry import HelperRegistry
from broker_coordinator.storage.invitation_registry import InvitationRegistry
from broker_coordinator.storage.journal import Journal, JournalAheadError, JournalEntry
from broker_coordinator.storage.noise_seeds import read_participations, read_series
from broker_coordinator.storage.query_registry import QueryRegistry
from broker_coordinator.storage.standing import Standing, TaskStanding, check_not_set_back, read_decided, read_standing
from broker_coordinator.storage.stored_tasks import StoredTask
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle
from fleet_host.log_lines import log_line
from fleet_host.rate_limit import RateLimit
from fleet_protocol import topics
from fleet_protocol.errors import ConfigurationError, Reason
from fleet_protocol.kinds import Leaf, PresenceState
from fleet_protocol.task_description import TaskDescription

REFUSAL_LOG_INTERVAL_SECONDS = 10.0
"""Per reason. The database counts every refusal; the log says that there are some."""

MAX_WAITING_RECEIPTS = 10_000
"""For the broker to take them: some four megabytes."""

DEVICES_REMEMBERED_AT_START = 500
"""Of each task and kind: from their last payloads, consumers remember again what they did before a restart."""


ENROLMENTS_SECONDS = 5.0
"""Between two looks at who has enrolled in other shards: each reads all devices. Who comes from there is looked up."""

logger = logging.getLogger(__name__)

Asked = FileRequested | PresenceSeen | Enrolled | MaskReplied
"""What makes the coordinator send or do more than a receipt."""


@dataclass(frozen=True, slots=True)
class _Task:
    """`sums_after`, `renewed` as in `TaskProgress`: what changes them changes the tasks' counter."""

    description: TaskDescription
    buffer_size: int
    stored: StoredTask
    sums_after: int = 0
    renewed: bool = False


class Intake:
    """Decides on messages; hands over as `decoded` what aggregation would otherwise read and decode again.

    Raises:
        JournalUnavailableError: the database can't be read.
    """

    def __init__(
        self,
        journal: Journal,
        registry: TaskRegistry,
        signer: MessageSigner,
        admission: Admission,
        *,
        metrics: Metrics,
        decoded: DecodedBatches,
    ) -> None:
        self._journal = journal
        self._registry = registry
        self._devices = DeviceRegistry(journal.engine)
        self._invitations = InvitationRegistry(journal.engine)
        self._invitations_until = math.inf
        self._helper_registry = HelperRegistry(journal.engine)
        self._helpers: set[str] = set()
        self._cluster_registry = ClusterRegistry(journal.engine)
        self._query_registry = QueryRegistry(journal.engine)
        self._cohort_registry = CohortRegistry(journal.engine)
        self._admission = admission
        self._metrics = metrics
        self._decoded = decoded
        self._receipts = Receipts(signer, admission.settings.keys)
        self._unserved = UnservedTasks()
        self._lost_versions = LostVersions()
        self._newcomers = Newcomers()
        self._strays = Strays(admission.settings)
        self._twins = Twins()
        self._others = OtherShards(admission.settings.shards)
        self._enrolments_at = 0.0
        self._logged_refusals = RateLimit(REFUSAL_LOG_INTERVAL_SECONDS, len(Reason))
        self._logged_drops = RateLimit(REFUSAL_LOG_INTERVAL_SECONDS, 1)
        self._outbox: deque[Publication] = deque()
        self._change_counters: Mapping[str, int] | None = None
        self._position = 0
        self._load(read_standing(journal.engine))

    def handle(self, messages: Sequence[Message], now: float) -> list[Asked]:
        """Decide on a batch, commit it, and queue its receipts; returns what devices ask to be sent: files, or whoever
        has just come, how things stand; and what mask helpers reply.

        `now` is in seconds on any one clock.

        Raises:
            JournalUnavailableError: nothing happened; offer the same messages again later.
            DatabaseSetBackError: nothing happened; this process must stop.
        """
        if messages and not (messages := [each for each in messages if not _takes_back(each)]):
            return []
        try:
            return self._handle_together(messages, now)
        except JournalUnavailableError:
            raise
        except Exception:  # a defect that one message triggers must not stop the others
            logger.exception(log_line("batch_failed", messages=len(messages), first_topic=messages[0].topic))
            self._load(read_standing(self._journal.engine))
            return [requested for message in messages for requested in self._handle_alone(message, now)]

    def reload_if_changed(self) -> None:
        """Take in what operators' commands have changed in the database. `handle` does so by itself.

        Raises:
            JournalUnavailableError: call again later.
        """
        self._catch_up(read_standing(self._journal.engine))

    def tasks(self) -> list[str]:
        """The names of the tasks that are served."""
        return list(self._tasks)

    def has_come_elsewhere(self) -> bool:
        """Whether somebody who takes part has come to another shard since the last call, as far as is read."""
        return self._others.has_news(ARRIVALS, self._change_counters or {})

    def publications(self, limit: int) -> list[Publication]:
        """Take at most `limit` receipts."""
        return [self._outbox.popleft() for _ in range(min(limit, len(self._outbox)))]

    def _handle_alone(self, message: Message, now: float) -> list[Asked]:
        try:
            return self._handle_together([message], now)
        except JournalUnavailableError:
            raise
        except Exception:
            logger.exception(log_line("message_failed", topic=message.topic))
            self._load(read_standing(self._journal.engine))
            return []

    def _handle_together(self, messages: Sequence[Message], now: float) -> list[Asked]:
        self._catch_up(read_standing(self._journal.engine))
        branch = self._view.branch(now)
        decisions = list(self._admission.admit_all(messages, branch))
        if self._has_learned_of(decisions):
            return self._handle_together(messages, now)
        forgotten = self._view.surplus_pending(branch, self._admission.settings.maximum_pending_devices)
        entry = JournalEntry.of(
            decisions,
            self._view.devices_changed_in(branch),
            forgotten,
            self._position,
            (self._change_counters or {}).get(TASKS, 0),
            counted=self._others.to_count(
                has_come=any(_has_come(each) for each in decisions),
                has_enrolled=any(isinstance(each, Enrolled) and self._is_news(each.device) for each in decisions),
            ),
        )
        begun = time.perf_counter()
        try:
            first_position = self._journal.write(entry)
        except JournalAheadError:  # by another intake, on the same devices, or by an operator
            return self._handle_together(messages, now)
        self._hand_over(entry, first_position)
        self._others.counted(entry.counted)
        self._metrics.count_batch(
            decisions, entry.accepted, sum(len(message.data) for message in messages), time.perf_counter() - begun
        )
        self._newcomers.look_at(entry.devices, self._view, now)
        self._strays.look_at(entry.accepted, now)
        self._view.absorb(branch)
        for device in forgotten:
            self._view.forget(device)
        for decision in decisions:
            self._answer(decision, now)
        others = [decision for decision in decisions if not isinstance(decision, Accepted)]
        self._lost_versions.look_at(others, self._view.tasks)
        for name in self._twins.found(others, self._view):
            self._say_used_twice(name)
        if entry.devices:
            self._metrics.show_devices(self._view.numbers)
        return [each for each in others if isinstance(each, Asked) and _asks(each)]

    def _has_learned_of(self, decisions: Sequence[Decision]) -> bool:
        """Read what another shard's intake knows of devices that enrol here; whether to decide again with that."""
        if len(self._admission.settings.shards) < 2:
            return False
        known = self._view.devices
        enrolled = [each.device for each in decisions if isinstance(each, Enrolled)]
        doubtful = [each for each in enrolled if each.key_id not in known or each.state is DeviceState.PENDING]
        found = self._devices.like(doubtful) if doubtful else []
        news = [each for each in found if each.key_id not in known or known[each.key_id].state is not each.state]
        for device in news:
            self._view.set_device(device)
        return bool(news)

    def _is_news(self, device: Device) -> bool:
        """Whether it is new, or let in: what the others' numbers of devices follow."""
        known = self._view.devices.get(device.key_id)
        return known is None or known.state is not device.state

    def _hand_over(self, entry: JournalEntry, first_position: int) -> None:
        """Let the version maker have the payloads of an entry that is journalled from `first_position` on; note that it
        is, unless another intake's are before it, which are read first.
        """
        after = first_position - 1
        through = after + len(entry.accepted) + len(entry.refused)
        if through == after:
            return
        if after == self._position:
            self._position = through
        payloads = [
            (
                accepted.header.task,
                accepted.header.kind.decrypted.number,
                WaitingPayload(position, accepted.device, accepted.staleness, accepted.facts, accepted.item),
            )
            for position, accepted in enumerate(entry.accepted, after + 1)
            if accepted.held_by is None
        ]
        self._decoded.keep(DecodedBatch(after, through, payloads))

    def _answer(self, decision: Decision, now: float) -> None:
        if isinstance(decision, Refused) and self._logged_refusals.allows(decision.reason, now):
            logger.warning(
                log_line(
                    "message_refused", reason=decision.reason.value, device=decision.device, detail=decision.detail
                )
            )
        if len(self._outbox) >= MAX_WAITING_RECEIPTS:
            self._drop_receipt(now)
        elif receipt := self._receipts.receipt(decision, self._view, now):
            self._outbox.append(receipt)

    def _drop_receipt(self, now: float) -> None:
        """The broker takes fewer receipts than it brings messages: the device sends its payload again."""
        self._metrics.count_dropped(RECEIPT)
        if self._logged_drops.allows(None, now):
            logger.warning(log_line("receipts_dropped", waiting=len(self._outbox), remedy="see why the broker is slow"))

    def _say_used_twice(self, name: str) -> None:
        remedy = "give the copy a key and a name of its own (edge-agent keygen), and empty its state_folder"
        logger.warning(log_line("key_used_twice", device=name, remedy=remedy))
        with suppress(JournalUnavailableError):  # it is only shown
            self._devices.note_used_twice(name)

    def _catch_up(self, standing: Standing) -> None:
        """Let the view reflect how far every task is now, and what operators have changed."""
        check_not_set_back(standing.last_position, self._position)
        seen = self._change_counters
        found = standing.change_counters
        if seen is None or found.get(TASKS) != seen.get(TASKS):
            self._load(standing)
        elif any(found.get(subject) != seen.get(subject) for subject in (DEVICES, HELPERS, QUERIES, CLUSTERS, COHORTS)):
            self._load_devices()
        elif time.monotonic() >= self._enrolments_at and self._others.has_news(ENROLMENTS, found):
            self._enrolments_at = time.monotonic() + ENROLMENTS_SECONDS
            self._load_devices()
        elif time.time() >= self._invitations_until:
            self._load_invitations()
        self._change_counters = found
        self._view.tasks.update(self._progress(standing))
        if standing.last_position > self._position:  # another intake's, or our own whose commit was not answered
            self._view.add_highest_sequences(read_decided(self._journal.engine, self._position))
            self._view.recent.update(self._recent())
            self._view.participations.update(self._participations())
            self._position = standing.last_position

    def _load(self, standing: Standing) -> None:
        self._change_counters = None  # where the database fails meanwhile, all is read again
        self._tasks = self._load_tasks()
        self._load_helpers()
        self._view = FleetView(
            self._journal.decided,
            memories=self._memories(),
            highest_sequences=read_decided(self._journal.engine, 0),
            allowance=self._admission.settings.allowance,
            answered=self._receipts.recent,
            byte_allowance=self._admission.settings.byte_allowance,
            recent=self._recent(),
            helpers=self._helpers,
            participations=self._participations(),
        )
        self._load_devices()
        self._view.tasks.update(self._progress(standing))
        self._position = standing.last_position
        self._change_counters = standing.change_counters

    def _with_series(self, task: _Task) -> _Task:
        name = task.stored.name
        if (plan := task.description.device_privacy) is None:
            return task
        series = read_series(self._journal.engine, name, plan)
        return replace(task, sums_after=series.sums_after, renewed=series.renewed)

    def _load_tasks(self) -> dict[str, _Task]:
        """Those that can be served here; of the others it is said why not."""
        served = self._registry.served()
        unserved: dict[str, Exception] = dict(served.unreadable)
        found = {}
        for stored, bundle in served.readable:
            try:
                found[stored.name] = self._with_series(_loaded(stored, bundle))
            except ConfigurationError as error:
                unserved[stored.name] = error
        self._unserved.say(unserved)
        return found

    def _load_devices(self) -> None:
        self._view.set_devices(self._devices.longest_unchanged_first())
        self._load_helpers()
        self._view.queries.clear()
        self._view.queries.update(self._query_registry.asked())
        self._view.clusters.clear()
        self._view.clusters.update(self._cluster_registry.assigned())
        self._view.cohorts.clear()
        self._view.cohorts.update(self._cohort_registry.open_cohorts())
        self._load_invitations()
        self._metrics.show_devices(self._view.numbers)

    def _load_helpers(self) -> None:
        self._helpers.clear()
        self._helpers.update(self._helper_registry.allowed())

    def _load_invitations(self) -> None:
        """Those of the present; the next one that is open expires at `_invitations_until`, in seconds since 1970."""
        found = self._invitations.invitations(time.time())
        self._view.invitations.clear()
        self._view.invitations.update({each.identifier: each for each in found})
        opened = (each.expires for each in found if each.state is InvitationState.OPEN)
        self._invitations_until = min(opened, default=math.inf)

    def _progress(self, standing: Standing) -> dict[str, TaskProgress]:
        """Where each task stands once every full buffer that waits is made into a version."""
        progress = {}
        for name, task in self._tasks.items():
            newest, waiting, followed, along = standing.tasks.get(name, TaskStanding())
            stored = task.stored
            progress[name] = TaskProgress.standing_at(
                task.description,
                newest,
                waiting - along,
                followed or self._first_buffer_size(task),
                paused=stored.paused,
                generation=stored.generation,
                first_version=stored.first_version,
                along=along,
                sums_after=task.sums_after,
                renewed=task.renewed,
            )
        return progress

    def _first_buffer_size(self, task: _Task) -> int:
        """Of the first version of a bundle, or of every version where the task says it."""
        if task.description.aggregation.buffer_size is not None:
            return task.buffer_size
        return Participants().buffer_size(self._view.numbers[DeviceState.APPROVED])

    def _recent(self) -> dict[str, RecentDevices]:
        """By task, the devices that its last updates are of."""
        recent = {}
        for name, task in self._tasks.items():
            plan = task.description.aggregation
            size = window(plan.smallest_buffer, plan.max_staleness)
            devices = self._journal.last_devices(name, size)
            recent[name] = RecentDevices(size, (each for each in devices if each not in self._helpers))
        return recent

    def _participations(self) -> dict[tuple[str, str], Participation]:
        """How often devices count in versions that hide each of them."""
        found = {}
        for name, task in self._tasks.items():
            if task.description.device_privacy is not None:
                of_task = read_participations(self._journal.engine, name, task.buffer_size, waiting=True)
                found.update({(name, device): each for device, each in of_task.items()})
        return found

    def _memories(self) -> dict[tuple[str, Any], Any]:
        memories: dict[tuple[str, Any], Any] = {}
        for consumer in self._admission.consumers.values():
            if not isinstance(consumer, JournalledConsumer) or consumer.memory is None:
                continue
            for name, task in self._tasks.items():
                memory = memories[name, consumer.kind] = consumer.memory()
                last = self._journal.last_facts(name, consumer.kind.number, DEVICES_REMEMBERED_AT_START)
                for device, facts in last:
                    with suppress(msgspec.MsgspecError):  # the version maker sets it aside, and says so
                        read = msgspec.json.decode(facts, type=consumer.facts)
                        consumer.remember(memory, device, read, task.description)
        return memories


def _takes_back(message: Message) -> bool:
    """Whether a device that has moved takes its presence back: what is retained under its former shard."""
    return not message.data and not message.unread and topics.leaf_of(message.topic) == Leaf.STATE.value


def _asks(decision: Asked) -> bool:
    """Whether it is a request, or somebody who takes part has come."""
    return isinstance(decision, FileRequested | MaskReplied) or _has_come(decision)


def _has_come(decision: Decision) -> bool:
    if not isinstance(decision, Enrolled | PresenceSeen):
        return False
    device = decision.device
    has_come = isinstance(decision, Enrolled) or device.presence is PresenceState.ONLINE
    return has_come and device.state is DeviceState.APPROVED


def _loaded(stored: StoredTask, bundle: Bundle) -> _Task:
    description = bundle.description
    return _Task(description, version_consumer(description).buffer_size(description), stored)
