"""Whether a device is connected. Pure."""

from dataclasses import replace

from broker_coordinator.admission.consumer import Authentic, ControlConsumer
from broker_coordinator.admission.decisions import Decision, PresenceSeen
from broker_coordinator.admission.fleet_view import FleetView
from broker_coordinator.admission.settings import AdmissionSettings
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import PRESENCE, Presence, PresenceState
from fleet_protocol.limits import MAX_BOOT


def admit(presence: Presence, authentic: Authentic, _view: FleetView, _settings: AdmissionSettings) -> Decision:
    """The device as it is now; a will that was published late changes nothing.

    A device that is online under an old boot number has lost the newer ones: it is refused, and so told the newest.
    """
    device = authentic.device
    if not 0 <= presence.boot <= MAX_BOOT:
        raise ProtocolError(Reason.OUT_OF_BOUNDS, f"boot number {presence.boot}; allowed are 0 to {MAX_BOOT}")
    if presence.boot < device.boot:
        if presence.state is PresenceState.OFFLINE:
            return PresenceSeen(device)
        raise ProtocolError(Reason.SEQUENCE_REUSED, f"boot {presence.boot} of {device.name} is before {device.boot}")
    return PresenceSeen(replace(device, presence=presence.state, boot=presence.boot))


PRESENCE_CONSUMER = ControlConsumer(PRESENCE, admit)
