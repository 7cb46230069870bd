"""A device enrols: it is recorded, and approved where enrolment is open. Pure."""

from dataclasses import replace

from broker_coordinator.admission.consumer import Authentic, ControlConsumer
from broker_coordinator.admission.decisions import Decision, Enrolled
from broker_coordinator.admission.fleet_view import DeviceState, FleetView
from broker_coordinator.admission.settings import AdmissionSettings
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import KEY_BYTES, VerifyKey
from fleet_protocol.kinds import ENROLMENT, Enrolment

MAX_SELF_DESCRIPTION_CHARACTERS = 100
"""Of the profile and the software version in an enrolment."""


def admit(enrolment: Enrolment, authentic: Authentic, view: FleetView, settings: AdmissionSettings) -> Decision:
    """The device's record from now on."""
    device = authentic.device
    if view.key_of.get(device.name, device.key_id) != device.key_id:
        raise ProtocolError(
            Reason.UNKNOWN_KEY,
            f"the name {device.name} is bound to another key; an operator must revoke that key first, with:"
            f" broker-coordinator devices revoke {device.name}",
        )
    is_let_in = settings.open_enrolment and device.state is DeviceState.PENDING
    if is_let_in and view.numbers[DeviceState.APPROVED] >= settings.maximum_devices:
        raise ProtocolError(Reason.UNKNOWN_KEY, f"the fleet is full: maximum_devices is {settings.maximum_devices}")
    described = (enrolment.profile, enrolment.software)
    if any(len(text) > MAX_SELF_DESCRIPTION_CHARACTERS or not text.isprintable() for text in described):
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS,
            f"profile and software must be printable, at most {MAX_SELF_DESCRIPTION_CHARACTERS} characters each",
        )
    state = DeviceState.APPROVED if settings.open_enrolment else device.state
    enrolled = replace(device, state=state, profile=enrolment.profile, software=enrolment.software)
    return Enrolled(enrolled, authentic.parsed.digest)


def named_key(enrolment: Enrolment) -> VerifyKey:
    """The key that the device names as its own."""
    if len(enrolment.public_key) != KEY_BYTES:
        raise ProtocolError(Reason.MALFORMED, f"a public key has {KEY_BYTES} bytes, not {len(enrolment.public_key)}")
    return VerifyKey(enrolment.public_key)


ENROLMENT_CONSUMER = ControlConsumer(ENROLMENT, admit, answered=True, named_key=named_key)
