"""Whose message it is: topic, size, envelope, key and signature, in this order. Pure.

Each check is cheaper and trusts less than the next; nothing here looks into a payload but an enrolment's own key.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from broker_coordinator.admission.decisions import Message, Refused, refusal
from broker_coordinator.admission.fleet_view import Device, DeviceState, FleetView
from broker_coordinator.admission.parsed_message import ParsedMessage
from broker_coordinator.admission.rate_limit import UNLIMITED, TokenBucket
from fleet_protocol import topics
from fleet_protocol.envelope import Envelope, digest, read_envelope
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import KEY_BYTES, SigningKey, VerifyKey, key_id
from fleet_protocol.kinds import ENROLMENT, KINDS, Enrolment, Leaf, decode_payload

LARGEST_BYTES: Mapping[Leaf, int] = {
    leaf: max(kind.max_bytes for kind in KINDS.values() if kind.leaf is leaf) for leaf in (Leaf.UP, Leaf.STATE)
}
"""Of any message on that leaf of a device's topics."""


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """The coordinator's own place in the topics, and whom it lets in (`configuration.CoordinatorConfiguration`)."""

    fleet: str
    shard: str
    open_enrolment: bool
    maximum_devices: int
    key: SigningKey | None = None
    """Opens encrypted updates."""
    allowance: TokenBucket = UNLIMITED
    """Of updates, for each device."""


@dataclass(frozen=True, slots=True)
class Authentic:
    """A message of which the signature verified; `device` is its sender, new where it enrols for the first time."""

    device: Device
    opened: ParsedMessage

    @property
    def envelope(self) -> Envelope:
        return self.opened.envelope


def open_message(message: Message, policy: AdmissionPolicy) -> ParsedMessage | Refused:
    """What can be said without knowing anyone."""
    envelope_digest = digest(message.data)
    device, answered = None, False
    try:
        device, leaf = _device_and_leaf(message.topic, policy)
        answered = leaf is Leaf.UP
        return ParsedMessage(message, envelope_digest, device, _read(message.data, leaf))
    except ProtocolError as error:
        return refusal(error, device, envelope_digest, answered=answered)


def _device_and_leaf(topic: str, policy: AdmissionPolicy) -> tuple[str, Leaf]:
    device, last = topics.device_of(topic)
    leaf = Leaf(last)
    build = _TOPICS.get(leaf)
    if build is None or topic != build(policy.fleet, policy.shard, device):
        raise ProtocolError(Reason.WRONG_TOPIC, f"{topic!r} is not a topic on which this coordinator is spoken to")
    return device, leaf


def _read(data: bytes, leaf: Leaf) -> Envelope:
    envelope = read_envelope(data, LARGEST_BYTES[leaf])
    kind = envelope.header.kind
    if kind.leaf != leaf:
        raise ProtocolError(Reason.MALFORMED, f"{kind.name} does not belong on the topic {leaf.value!r}")
    if len(data) > kind.max_bytes:
        raise ProtocolError(Reason.TOO_LARGE, f"{kind.name} of {len(data)} bytes exceeds {kind.max_bytes}")
    return envelope


def authenticate(opened: ParsedMessage, known: FleetView) -> Device:
    envelope, device = opened.envelope, opened.device
    sender = known.devices.get(envelope.key_id)
    if sender is None and envelope.header.kind is ENROLMENT:
        sender = Device(device, _named_key(envelope), DeviceState.PENDING)
    if sender is None:
        raise ProtocolError(
            Reason.UNKNOWN_KEY, f"key {envelope.key_id.hex()} is not enrolled here; send an enrolment first"
        )
    if sender.name != device:
        raise ProtocolError(
            Reason.WRONG_TOPIC, f"key {envelope.key_id.hex()} belongs to {sender.name}, the topic to {device}"
        )
    if sender.state is DeviceState.REVOKED:
        raise ProtocolError(Reason.REVOKED_KEY, f"the key of {device} is revoked; ask the operator of the fleet")
    opened.verify(sender.public_key)
    return sender


def _named_key(envelope: Envelope) -> VerifyKey:
    named = decode_payload(envelope.payload, Enrolment).public_key
    if len(named) != KEY_BYTES or key_id(VerifyKey(named)) != envelope.key_id:
        raise ProtocolError(Reason.MALFORMED, "the enrolment names another public key than the one that signed it")
    return VerifyKey(named)


def require_approved(device: Device) -> None:
    if device.state is not DeviceState.APPROVED:
        raise ProtocolError(
            Reason.UNKNOWN_KEY,
            f"{device.name} awaits approval; on the coordinator run: broker-coordinator devices approve {device.name}",
        )


_TOPICS: Mapping[Leaf, Callable[[str, str, str], str]] = {Leaf.UP: topics.up, Leaf.STATE: topics.state}
