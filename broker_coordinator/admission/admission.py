"""A message and a view of the fleet in, a typed decision out: every check, in order. Pure.

Each check is cheaper and trusts less than the next:

    every message        not answered a moment ago -> topic -> size -> envelope -> kind belongs on that topic, and its
                         size -> of a device that has moved, the topic that it was signed for (`_parse`)
                         -> known key of that device, approved unless it enrols (`sender_of`)
                         -> does not ask too often -> signature (`_check_signature`)
    a journalled kind    -> sequence number -> task not paused, rate, bytes, share (`room`)
                         -> task; but for answers to queries, generation (`_require_generation`), version and
                         staleness (`_checked_staleness`)
                         -> the task's kind (`_require_version_kind`)
                         -> how often the device counts in versions that hide each device (`check_turn`)
                         -> payload decrypted -> the consumer's own checks
    any other kind       -> the consumer's own checks

Nothing here knows a kind: what differs between them is in `fleet_protocol.kinds` and in the consumers.
"""

import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import msgspec

from broker_coordinator.admission.ahead import UNPREPARED, Prepared, prepare, read_payload
from broker_coordinator.admission.consumer import (
    AnswerConsumer,
    AnyJournalledConsumer,
    Authentic,
    Consumer,
    ControlConsumer,
    JournalledConsumer,
    Offered,
    VersionConsumer,
)
from broker_coordinator.admission.decisions import (
    Accepted,
    AnsweredBefore,
    Decision,
    Enrolled,
    FileRequested,
    MaskReplied,
    Message,
    PresenceSeen,
    Refused,
    Repeated,
    refusal,
    refuse_unread,
)
from broker_coordinator.admission.fleet_view import (
    Decided,
    Device,
    DeviceState,
    FleetView,
    TaskProgress,
    decided_of,
    repeats_of,
)
from broker_coordinator.admission.invited import InvitationState
from broker_coordinator.admission.parsed_message import ParsedMessage
from broker_coordinator.admission.room import note_accepted, take_room
from broker_coordinator.admission.senders import is_told_newest_boot, sender_of
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.admission.turns import check_turn, note_turn
from broker_coordinator.aggregation.staleness import staleness_at
from fleet_protocol import topics
from fleet_protocol.envelope import Header, digest, read_envelope
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import KINDS, Leaf, PayloadKind, decode_payload
from fleet_protocol.moved_message import MovedMessage, read_moved
from fleet_protocol.task_description import TaskDescription

TOPICS_REMEMBERED = 10_000
"""Each is read once: a device sends on two for ever. Those that are no device's are not remembered."""

_TOPICS: Mapping[Leaf, Callable[[str, str, str], str]] = {Leaf.UP: topics.up, Leaf.STATE: topics.state}


@dataclass(frozen=True, slots=True)
class Admission:
    """Decides on messages by `settings`; `consumers` are those of all kinds that devices send."""

    settings: AdmissionSettings
    consumers: Mapping[PayloadKind, Consumer]

    def admit(self, message: Message, view: FleetView) -> Decision:
        """Decide on one message. Never raises for anything in the message."""
        parsed = self._parse(message, _largest_bytes(), view.answered)
        return self.decide(parsed, UNPREPARED, view) if isinstance(parsed, ParsedMessage) else parsed

    def admit_all(self, messages: Sequence[Message], view: FleetView) -> Iterator[Decision]:
        """Decide on messages in order, each as `admit` would after those before it, which `view` then reflects.

        Payloads that are likely to be accepted are decoded together before: that is several times faster.
        """
        largest = _largest_bytes()
        parsed = [self._parse(message, largest, view.answered) for message in messages]
        prepared = prepare(parsed, view, self.consumers, self.settings.keys)
        for number, each in enumerate(parsed):
            ahead = prepared.get(number, UNPREPARED)
            decision = self.decide(each, ahead, view) if isinstance(each, ParsedMessage) else each
            self.apply(decision, view)
            yield decision

    def apply(self, decision: Decision, view: FleetView) -> None:
        """Apply a decision to `view`, so that the next message of the batch is decided after it."""
        match decision:
            case Accepted(device, header):
                view.set_decided(device, header.sequence, decided_of(header.kind, decision.envelope_digest))
                consumer = self.consumers[header.kind.decrypted]
                assert isinstance(consumer, JournalledConsumer)  # noqa: S101 - only these are accepted
                progress = view.tasks[header.task]
                note_accepted(header, device, progress, view)
                note_turn(device, progress, view)
                if isinstance(consumer, VersionConsumer):
                    view.tasks[header.task] = progress.after_one(takes_place=consumer.take_place(decision.facts))
                _remember(consumer, progress.description, device, decision.facts, view)
            case Refused(device=str(device), header=Header() as header):
                decided = Decided(decision.envelope_digest, decision.reason, decision.detail)
                view.set_decided(device, header.sequence, decided)
            case Enrolled(device, invitation=invitation, replaced=replaced):
                if replaced is not None:
                    view.set_device(replaced)
                view.set_device(device)
                if invitation:
                    spent = replace(view.invitations[invitation], state=InvitationState.SPENT)
                    view.invitations[invitation] = spent
            case FileRequested(device) | PresenceSeen(device) | MaskReplied(device):
                view.set_device(device)

    def _parse(
        self, message: Message, largest: Mapping[Leaf, int], answered_before: Container[bytes]
    ) -> ParsedMessage | AnsweredBefore | Refused:
        """The checks that need no fleet view."""
        if message.unread:
            return refuse_unread(message)
        data, device, answered = message.data, None, False
        try:
            moved = read_moved(data)
            data = moved.envelope if moved else data
            if (envelope_digest := digest(data)) in answered_before:
                return AnsweredBefore(envelope_digest)
            device, leaf = _device_and_leaf(message.topic, self.settings.fleet, self.settings.shard)
            answered = leaf is Leaf.UP
            envelope = read_envelope(data, largest[leaf])
            self._check_kind(envelope.header.kind, leaf, len(data))
            if moved:
                message = self._as_signed(moved, device, envelope.header.kind)
        except ProtocolError as error:
            return refusal(error, device, digest(data), answered=answered)
        return ParsedMessage(message, envelope_digest, device, envelope)

    def _as_signed(self, moved: MovedMessage, device: str, kind: PayloadKind) -> Message:
        """The message that a device would have published before it moved."""
        if not kind.journalled:
            raise ProtocolError(Reason.MALFORMED, f"{kind.name} is signed for the shard that it is sent under")
        return Message(topics.up(self.settings.fleet, moved.shard, device), moved.envelope)

    def _check_kind(self, kind: PayloadKind, leaf: Leaf, size: int) -> None:
        if kind.leaf is not leaf:
            raise ProtocolError(Reason.MALFORMED, f"{kind.name} does not belong on the topic {leaf.value!r}")
        if kind.decrypted not in self.consumers:
            raise ProtocolError(Reason.UNKNOWN_KIND, f"no consumer of {kind.name} is installed; update the coordinator")
        if size > kind.max_bytes:
            raise ProtocolError(Reason.TOO_LARGE, f"{kind.name} of {size} bytes exceeds {kind.max_bytes}")

    def decide(self, parsed: ParsedMessage, ahead: Prepared, view: FleetView) -> Decision:
        """Decide on a message that is parsed, and of which `ahead` was computed; as `admit`."""
        consumer = self.consumers[parsed.envelope.header.kind.decrypted]
        verified = False
        trusted_key = b""
        try:
            device = sender_of(parsed, consumer, view, self.settings)
            asks_again = not ahead.is_checked and _asks_again(parsed, consumer, view)
            if asks_again and not view.has_room(self.settings.repeat_allowance, repeats_of(device)):
                return _refuse_in_silence(parsed)
            _check_signature(parsed, device, ahead)
            verified = device.state is DeviceState.APPROVED
            if asks_again:
                view.spend(self.settings.repeat_allowance, repeats_of(device))
            if isinstance(consumer, JournalledConsumer):
                return self._admit_journalled(parsed, consumer, device, ahead, view)
            payload = decode_payload(parsed.envelope.payload, consumer.kind.payload)
            trusted_key = consumer.trusted_key(payload, view)
            return consumer.admit(payload, Authentic(device, parsed), view, self.settings)
        except ProtocolError as error:
            # A device that is not enrolled any more is told so, whatever it sends: it enrols again.
            answered = (
                isinstance(consumer, JournalledConsumer)
                or consumer.answered
                or error.reason is Reason.UNKNOWN_KEY
                or (error.reason is Reason.SEQUENCE_REUSED and is_told_newest_boot(parsed, view, self.settings))
            )
            return refusal(
                error, parsed.device, parsed.digest, answered=answered, verified=verified, trusted_key=trusted_key
            )

    def _admit_journalled(
        self, parsed: ParsedMessage, consumer: AnyJournalledConsumer, device: Device, ahead: Prepared, view: FleetView
    ) -> Decision:
        """Raises ProtocolError where the sequence number stays unused: the device may send the same bytes again."""
        header = parsed.envelope.header
        if before := view.decided_before(device.name, header.sequence):
            if before.digest == parsed.digest:
                return Repeated(device.name, header.sequence, before, header.task)
            raise ProtocolError(
                Reason.SEQUENCE_REUSED,
                f"{device.name} has used the number {header.sequence} for another {header.kind.name}; continue after"
                f" {view.highest_sequence(device.name)}",
            )
        progress = view.tasks.get(header.task)
        take_room(header, device.name, len(parsed.message.data), progress, view)
        try:
            return self._offer(parsed, consumer, ahead, progress, view)
        except ProtocolError as error:
            return refusal(error, device.name, parsed.digest, answered=True, verified=True, header=header)

    def _offer(
        self,
        parsed: ParsedMessage,
        consumer: AnyJournalledConsumer,
        ahead: Prepared,
        progress: TaskProgress | None,
        view: FleetView,
    ) -> Accepted:
        header = parsed.envelope.header
        if progress is None:
            raise ProtocolError(Reason.UNKNOWN_TASK, f"task {header.task!r} is not served here")
        staleness = 0
        if not isinstance(consumer, AnswerConsumer):
            _require_generation(header, progress)
            staleness = _checked_staleness(header, progress)
        task = progress.description
        if isinstance(consumer, VersionConsumer):
            _require_version_kind(consumer.kind, task)
        check_turn(parsed.device, progress, view)
        offered = Offered(
            parsed.device,
            header,
            ahead.payload if ahead.payload is not None else read_payload(parsed, self.settings.keys),
            task,
            staleness,
            ahead.decoded,
            view.memories.get((header.task, consumer.kind)) if consumer.memory else None,
            parsed.device in view.helpers,
            view.queries.get(header.task, {}),
            view.cluster(header.task, parsed.device),
            view.cohorts.get(header.task),
            view.devices[view.key_of[parsed.device]].public_key,
        )
        admitted = consumer.admit(offered)
        _require_finite(admitted.facts)
        return Accepted(
            parsed.device,
            header,
            parsed.message.data,
            parsed.digest,
            staleness,
            admitted.facts,
            admitted.item,
            admitted.held_by,
        )


def _largest_bytes() -> Mapping[Leaf, int]:
    """Of any message on that leaf of a device's topics."""
    return {leaf: max(kind.max_bytes for kind in KINDS.values() if kind.leaf is leaf) for leaf in _TOPICS}


@lru_cache(TOPICS_REMEMBERED)
def _device_and_leaf(topic: str, fleet: str, shard: str) -> tuple[str, Leaf]:
    device, last = topics.device_of(topic)
    leaf = Leaf(last)
    build = _TOPICS.get(leaf)
    if build is None or topic != build(fleet, shard, device):
        raise ProtocolError(Reason.WRONG_TOPIC, f"{topic!r} is not a topic of this coordinator")
    return device, leaf


def _asks_again(parsed: ParsedMessage, consumer: Consumer, view: FleetView) -> bool:
    """Whether it gets an answer, but is no payload with a number of its own from a device that may send one."""
    if isinstance(consumer, ControlConsumer):
        return consumer.answered
    is_unused = parsed.envelope.header.sequence > view.highest_sequence(parsed.device)
    return not is_unused or not view.has_room(view.allowance, parsed.device)


def _refuse_in_silence(parsed: ParsedMessage) -> Refused:
    """Nobody pays for the signature, nor for an answer, of what a device sends too often."""
    error = ProtocolError(Reason.RATE_LIMITED, f"{parsed.device} asks too often for what it was told")
    return refusal(error, parsed.device, parsed.digest, answered=False)


def _check_signature(parsed: ParsedMessage, sender: Device, ahead: Prepared) -> None:
    if ahead.bad_signature is not None:
        raise ahead.bad_signature
    if not ahead.is_checked:
        parsed.envelope.verify(sender.public_key, parsed.message.topic)


def _require_generation(header: Header, progress: TaskProgress) -> None:
    """Refuse what was trained before the task's present generation: it may have counted, or its version be lost."""
    if header.generation != progress.generation:
        raise ProtocolError(
            Reason.OLD_GENERATION,
            f"trained in generation {header.generation} of {header.task}, which is in generation {progress.generation};"
            " take it back, and follow the manifest",
        )


def _checked_staleness(header: Header, progress: TaskProgress) -> int:
    staleness = staleness_at(progress.version, header.base_version)
    if not progress.first_version <= header.base_version <= progress.version:
        raise ProtocolError(
            Reason.UNKNOWN_VERSION,
            f"version {header.base_version} of {header.task}; there are {progress.first_version} to {progress.version}",
        )
    if staleness - progress.unmade > progress.description.largest_staleness:
        raise ProtocolError(
            Reason.TOO_STALE,
            f"made from version {header.base_version} of {header.task}, now at {progress.version}: staleness"
            f" {staleness} exceeds max_staleness ({progress.description.largest_staleness})",
        )
    return staleness


def _require_finite(facts: msgspec.Struct) -> None:
    """Refuse what JSON, and so the journal, has no form for."""
    for name in _float_fields(type(facts)):
        if not math.isfinite(value := getattr(facts, name)):
            raise ProtocolError(Reason.NOT_FINITE, f"{name} is {value}")


@cache
def _float_fields(facts: type[msgspec.Struct]) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.structs.fields(facts) if field.type is float)


def _require_version_kind(kind: PayloadKind, task: TaskDescription) -> None:
    """Refuse what would wait for a version for ever."""
    if task.gossip is not None:
        raise ProtocolError(
            Reason.MALFORMED,
            f"{task.task} is learned by gossip: no version is made of updates, and devices tell each other; update"
            " edgeflock on this device",
        )
    if kind.name != task.versions_from:
        raise ProtocolError(
            Reason.MALFORMED, f"versions of {task.task} are made from {task.versions_from}, not from {kind.name}"
        )


def _remember(consumer: AnyJournalledConsumer, task: TaskDescription, device: str, facts: Any, view: FleetView) -> None:
    if consumer.memory is not None:
        consumer.remember(view.memory(task.task, consumer.kind, consumer.memory), device, facts, task)
