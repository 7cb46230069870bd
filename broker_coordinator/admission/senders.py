"""Who has sent a message: a device that is approved, or one that enrols. Pure.

All of this comes before the signature is verified: what strangers cost is bounded, however many names they invent.
"""

from collections.abc import Callable
from typing import Any

from broker_coordinator.admission.consumer import Consumer, ControlConsumer
from broker_coordinator.admission.fleet_view import Device, DeviceState, FleetView, enrolments_of, repeats_of
from broker_coordinator.admission.parsed_message import ParsedMessage
from broker_coordinator.admission.settings import AdmissionSettings
from fleet_host.rate_limit import TokenBucket
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import VerifyKey
from fleet_protocol.kinds import decode_payload

PENDING_ALLOWANCE = TokenBucket(5.0, 1)
"""How often a device that awaits approval may enrol; agents wait at least two seconds, and then longer."""

STRANGERS = ""
"""No device's name: whose allowance all unknown keys use."""


def sender_of(parsed: ParsedMessage, consumer: Consumer, view: FleetView, settings: AdmissionSettings) -> Device:
    """Who has sent a message, if its signature is right; it is not verified yet.

    Raises:
        ProtocolError: `WRONG_TOPIC`, `REVOKED_KEY`; `UNKNOWN_KEY` for a device that is not approved and does not enrol;
            `RATE_LIMITED` for one that does, where many do; `MALFORMED` for an enrolment.
    """
    sender = view.devices.get(parsed.envelope.key_id)
    if sender is None:
        return _stranger(parsed, consumer, view, settings.enrolment_allowance)
    if sender.name != parsed.device:
        raise ProtocolError(
            Reason.WRONG_TOPIC,
            f"key {parsed.envelope.key_id.hex()} belongs to {sender.name}, the topic to {parsed.device}",
        )
    if sender.state is DeviceState.REVOKED:
        raise ProtocolError(Reason.REVOKED_KEY, f"the key of {sender.name} is revoked; ask the operator of the fleet")
    if sender.state is DeviceState.PENDING:
        if _named_key(consumer) is None:
            raise ProtocolError(
                Reason.UNKNOWN_KEY,
                f"{sender.name} awaits approval; on the coordinator run: broker-coordinator devices approve"
                f" {sender.name} {sender.key_id.hex()}",
            )
        if not view.spend(PENDING_ALLOWANCE, enrolments_of(sender)):
            raise ProtocolError(Reason.RATE_LIMITED, f"{sender.name} has just enrolled; it awaits approval")
    return sender


def is_told_newest_boot(parsed: ParsedMessage, view: FleetView, settings: AdmissionSettings) -> bool:
    """Whether a verified control message whose number is used gets a receipt, which names its device's newest boot.

    A device whose state was put back has no other way to learn that number. Whoever replays its messages gets no more
    receipts than for its payloads, and none for the last request that was taken: that has only come twice.
    """
    device = view.devices[parsed.envelope.key_id]
    comes_twice = parsed.envelope.header.sequence == device.request_sequence
    return not comes_twice and view.spend(settings.repeat_allowance, repeats_of(device))


def _stranger(parsed: ParsedMessage, consumer: Consumer, view: FleetView, allowance: TokenBucket) -> Device:
    envelope = parsed.envelope
    if (named_key := _named_key(consumer)) is None:
        raise ProtocolError(
            Reason.UNKNOWN_KEY, f"key {envelope.key_id.hex()} is not enrolled here; send an enrolment first"
        )
    if not view.spend(allowance, STRANGERS):
        raise ProtocolError(
            Reason.RATE_LIMITED,
            f"more than {3600 / allowance.interval_seconds:g} unknown devices enrol in an hour; on the coordinator"
            f" run: broker-coordinator devices approve {parsed.device} with the public key of this one",
        )
    sender = Device(
        parsed.device, named_key(decode_payload(envelope.payload, consumer.kind.payload)), DeviceState.PENDING
    )
    if sender.key_id != envelope.key_id:
        raise ProtocolError(
            Reason.MALFORMED, f"the {consumer.kind.name} names another public key than the one that signed it"
        )
    return sender


def _named_key(consumer: Consumer) -> Callable[[Any], VerifyKey] | None:
    """How the sender's key is read from the payload, where that may be a key that is not known yet."""
    return consumer.named_key if isinstance(consumer, ControlConsumer) else None
