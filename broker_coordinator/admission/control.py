"""What authentic messages other than updates lead to: enrolments, requests for files and versions, presence. Pure."""

from dataclasses import replace

from broker_coordinator.admission.authentication import AdmissionPolicy, Authentic, require_approved
from broker_coordinator.admission.decisions import BlobRequested, Decision, Enrolled, PresenceSeen, WeightsRequested
from broker_coordinator.admission.fleet_view import Device, DeviceState, FleetView
from fleet_protocol import topics
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import BlobRequest, Enrolment, Presence, WeightsRequest, decode_payload
from fleet_protocol.limits import MAX_SEQUENCE
from fleet_protocol.topics import PackedWeights

MAX_SELF_DESCRIPTION_CHARACTERS = 100
"""Of the profile and the software version in an enrolment."""


def admit_enrolment(authentic: Authentic, known: FleetView, policy: AdmissionPolicy) -> Decision:
    device, enrolment = authentic.device, decode_payload(authentic.envelope.payload, Enrolment)
    if known.key_of.get(device.name, device.key_id) != device.key_id:
        raise ProtocolError(
            Reason.UNKNOWN_KEY,
            f"the name {device.name} is bound to another key; an operator must revoke that key first, with:"
            f" broker-coordinator devices revoke {device.name}",
        )
    if device.key_id not in known.devices and len(known.devices) >= policy.maximum_devices:
        raise ProtocolError(Reason.UNKNOWN_KEY, f"the fleet is full: maximum_devices is {policy.maximum_devices}")
    described = (enrolment.profile, enrolment.software)
    if any(len(text) > MAX_SELF_DESCRIPTION_CHARACTERS or not text.isprintable() for text in described):
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS,
            f"profile and software must be printable, at most {MAX_SELF_DESCRIPTION_CHARACTERS} characters each",
        )
    state = DeviceState.APPROVED if policy.open_enrolment else device.state
    enrolled = replace(device, state=state, profile=enrolment.profile, software=enrolment.software)
    return Enrolled(enrolled, authentic.opened.digest)


def admit_blob_request(authentic: Authentic, _known: FleetView, _policy: AdmissionPolicy) -> Decision:
    device, request = _requesting(authentic), decode_payload(authentic.envelope.payload, BlobRequest)
    blob = request.blob.hex()
    if not topics.is_blob_hash(blob):
        raise ProtocolError(Reason.MALFORMED, f"a blob is named by 32 bytes, not {len(request.blob)}")
    return BlobRequested(device, blob, tuple(request.chunks))


def admit_weights_request(authentic: Authentic, known: FleetView, _policy: AdmissionPolicy) -> Decision:
    device, request = _requesting(authentic), decode_payload(authentic.envelope.payload, WeightsRequest)
    task = authentic.envelope.header.task
    if task not in known.tasks:
        raise ProtocolError(Reason.UNKNOWN_TASK, f"task {task!r} is not served here")
    return WeightsRequested(device, PackedWeights(task, request.version, request.base), tuple(request.chunks))


def _requesting(authentic: Authentic) -> Device:
    """The device, with the sequence number of its request, which must be a new one."""
    device, sequence = authentic.device, authentic.envelope.header.sequence
    require_approved(device)
    if sequence <= device.request_sequence:
        raise ProtocolError(
            Reason.SEQUENCE_REUSED, f"request {sequence} of {device.name} is not after {device.request_sequence}"
        )
    return replace(device, request_sequence=sequence)


def admit_presence(authentic: Authentic, _known: FleetView, _policy: AdmissionPolicy) -> Decision:
    device, presence = authentic.device, decode_payload(authentic.envelope.payload, Presence)
    if not 0 <= presence.boot <= MAX_SEQUENCE:
        raise ProtocolError(Reason.OUT_OF_BOUNDS, f"boot number {presence.boot}")
    if presence.boot < device.boot:  # a will that fired late
        return PresenceSeen(device)
    return PresenceSeen(replace(device, presence=presence.state, boot=presence.boot))
