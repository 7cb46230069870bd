"""A device enrols: it is recorded, and approved where it was invited or enrolment is open. Pure."""

from dataclasses import replace

from broker_coordinator.admission.consumer import Authentic, ControlConsumer
from broker_coordinator.admission.decisions import Decision, Enrolled
from broker_coordinator.admission.fleet_view import Device, DeviceState, FleetView
from broker_coordinator.admission.invited import check_invitation
from broker_coordinator.admission.settings import AdmissionSettings
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import KEY_BYTES, VerifyKey
from fleet_protocol.kinds import ENROLMENT, Enrolment

MAX_SELF_DESCRIPTION_CHARACTERS = 100
"""Of the profile and the software version in an enrolment."""


def admit(enrolment: Enrolment, authentic: Authentic, view: FleetView, settings: AdmissionSettings) -> Decision:
    """The device's record from now on."""
    device = authentic.device
    is_invited = bool(enrolment.invitation) and device.state is not DeviceState.APPROVED
    if is_invited:
        invited = view.invitations.get(enrolment.invitation)
        check_invitation(enrolment, invited, device.name, authentic.parsed.message.topic, device.public_key)
    replaced = _replaced_key(enrolment, device, view)
    is_let_in = settings.open_enrolment and device.state is DeviceState.PENDING
    if is_let_in and not is_invited and view.numbers[DeviceState.APPROVED] >= settings.maximum_devices:
        raise ProtocolError(Reason.UNKNOWN_KEY, f"the fleet is full: maximum_devices is {settings.maximum_devices}")
    described = (enrolment.profile, enrolment.software)
    if any(len(text) > MAX_SELF_DESCRIPTION_CHARACTERS or not text.isprintable() for text in described):
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS,
            f"profile and software must be printable, at most {MAX_SELF_DESCRIPTION_CHARACTERS} characters each",
        )
    state = DeviceState.APPROVED if settings.open_enrolment or is_invited else device.state
    enrolled = replace(device, state=state, profile=enrolment.profile, software=enrolment.software)
    used_up = enrolment.invitation if is_invited else b""
    return Enrolled(enrolled, authentic.parsed.digest, used_up, replaced, trusted_key(enrolment, view))


def _replaced_key(enrolment: Enrolment, device: Device, view: FleetView) -> Device | None:
    """The key that the name is bound to, if it is another one and the invitation says that it may be replaced."""
    bound = view.key_of.get(device.name, device.key_id)
    if bound == device.key_id:
        return None
    invited = view.invitations.get(enrolment.invitation)
    if invited is None or not invited.replaces:
        raise ProtocolError(
            Reason.UNKNOWN_KEY,
            f"the name {device.name} is bound to another key; if it is the same device, made anew, an operator says so"
            f" with: broker-coordinator devices invite {device.name} --again; or takes the other key out with:"
            f" broker-coordinator devices revoke {device.name}",
        )
    return replace(view.devices[bound], state=DeviceState.REVOKED)


def trusted_key(enrolment: Enrolment, view: FleetView) -> bytes:
    """The id of the coordinator's key that the device knows of its invitation, and expects the answer from."""
    invited = view.invitations.get(enrolment.invitation)
    return invited.coordinator_key if invited else b""


def named_key(enrolment: Enrolment) -> VerifyKey:
    """The key that the device names as its own."""
    if len(enrolment.public_key) != KEY_BYTES:
        raise ProtocolError(Reason.MALFORMED, f"a public key has {KEY_BYTES} bytes, not {len(enrolment.public_key)}")
    return VerifyKey(enrolment.public_key)


ENROLMENT_CONSUMER = ControlConsumer(ENROLMENT, admit, answered=True, named_key=named_key, trusted_key=trusted_key)
