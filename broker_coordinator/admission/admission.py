"""Bytes and what is known in, a typed decision out. Pure: it reads no clock, socket or database, and changes nothing.

The checks stand in the order of the design: size cap -> signature -> sequence number -> header -> capped decompress ->
schema and bounds. Each is cheaper and trusts less than the next.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from broker_coordinator.admission.authentication import AdmissionPolicy, Authentic, authenticate, open_message
from broker_coordinator.admission.control import (
    admit_blob_request,
    admit_enrolment,
    admit_presence,
    admit_weights_request,
)
from broker_coordinator.admission.decisions import (
    Accepted,
    BlobRequested,
    Decision,
    Enrolled,
    Message,
    PresenceSeen,
    Refused,
    WeightsRequested,
    refusal,
)
from broker_coordinator.admission.fleet_view import Decided, DeviceState, FleetView
from broker_coordinator.admission.parsed_message import ParsedMessage
from broker_coordinator.admission.updates import admit_update
from fleet_protocol.codec import decode_together
from fleet_protocol.errors import ProtocolError
from fleet_protocol.kinds import (
    BLOB_REQUEST,
    ENCRYPTED_UPDATE,
    ENROLMENT,
    PRESENCE,
    UPDATE,
    WEIGHTS_REQUEST,
    PayloadKind,
)


def admit(message: Message, known: FleetView, policy: AdmissionPolicy) -> Decision:
    """Decide on one message. Never raises for anything that the message holds."""
    opened = open_message(message, policy)
    return opened if isinstance(opened, Refused) else _decide(opened, known, policy)


def admit_all(messages: Sequence[Message], known: FleetView, policy: AdmissionPolicy) -> Iterator[Decision]:
    """Decide on messages in order, each as `admit` would in the light of those before it, which `known` then reflects.

    Updates that are likely to be accepted are decoded together, ahead of the decisions: that is several times faster.
    """
    opened = [open_message(message, policy) for message in messages]
    _decode_ahead([each for each in opened if isinstance(each, ParsedMessage)], known, policy)
    for each in opened:
        decision = each if isinstance(each, Refused) else _decide(each, known, policy)
        apply(decision, known)
        yield decision


def _decode_ahead(batch: Iterable[ParsedMessage], known: FleetView, policy: AdmissionPolicy) -> None:
    candidates: dict[str, list[tuple[ParsedMessage, bytes]]] = {}
    for opened in batch:
        if _is_promising(opened, known):
            with contextlib.suppress(ProtocolError):  # the decision will say so
                opened.verify(known.devices[opened.envelope.key_id].public_key)
                packed = opened.update(policy.key).packed
                candidates.setdefault(opened.envelope.header.task, []).append((opened, packed))
    for task, updates in candidates.items():
        deltas = decode_together([packed for _, packed in updates], known.tasks[task].description.shapes)
        for (opened, _), delta in zip(updates, deltas, strict=True):
            opened.decoded(delta)


def _is_promising(opened: ParsedMessage, known: FleetView) -> bool:
    """Whether, as far as is known now, an update gets as far as to be decoded if its signature verifies."""
    header, sender = opened.envelope.header, known.devices.get(opened.envelope.key_id)
    return (
        header.kind.journalled
        and sender is not None
        and sender.state is DeviceState.APPROVED
        and sender.name == opened.device
        and header.sequence > known.highest_sequence(opened.device)
        and header.task in known.tasks
    )


def _decide(opened: ParsedMessage, known: FleetView, policy: AdmissionPolicy) -> Decision:
    kind, verified = opened.envelope.header.kind, False
    try:
        authentic = Authentic(authenticate(opened, known), opened)
        verified = True
        return _CONSUMERS[kind](authentic, known, policy)
    except ProtocolError as error:
        return refusal(
            error, opened.device, opened.digest, answered=kind.journalled or kind is ENROLMENT, verified=verified
        )


def apply(decision: Decision, known: FleetView) -> None:
    """Let `known` reflect a decision, so that the next message of the same batch is decided in its light."""
    match decision:
        case Accepted(device, header, _, envelope_digest):
            known.set_decided(device, header.sequence, Decided(envelope_digest))
            known.tasks[header.task] = known.tasks[header.task].after_one_update(decision.norm)
            known.use_allowance(device)
        case Refused(device=str(device), burned_sequence=int(sequence)):
            known.set_decided(device, sequence, Decided(decision.envelope_digest, decision.reason, decision.detail))
            known.use_allowance(device)
            if decision.excessive:
                task, norm = decision.excessive
                known.tasks[task] = known.tasks[task].after_excess(norm)
        case Enrolled(device) | BlobRequested(device) | WeightsRequested(device) | PresenceSeen(device):
            known.set_device(device)


_CONSUMERS: Mapping[PayloadKind, Callable[[Authentic, FleetView, AdmissionPolicy], Decision]] = {
    UPDATE: admit_update,
    ENCRYPTED_UPDATE: admit_update,
    ENROLMENT: admit_enrolment,
    BLOB_REQUEST: admit_blob_request,
    WEIGHTS_REQUEST: admit_weights_request,
    PRESENCE: admit_presence,
}
