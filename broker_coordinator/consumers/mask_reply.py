"""A mask helper replies to what it was asked about a cohort. Pure."""

from broker_coordinator.admission.consumer import Authentic, ControlConsumer
from broker_coordinator.admission.decisions import Decision, MaskReplied
from broker_coordinator.admission.fleet_view import FleetView
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.consumers.file_requests import requesting
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import MASK_REPLY, MaskReply


def admit_mask_reply(reply: MaskReply, authentic: Authentic, view: FleetView, _settings: AdmissionSettings) -> Decision:
    """From a helper that a task names."""
    device = requesting(authentic)
    plans = (progress.description.masks for progress in view.tasks.values())
    if not any(plan is not None and device.name in plan.helpers for plan in plans):
        raise ProtocolError(Reason.UNKNOWN_TASK, f"{device.name} is a mask helper of no task that is served here")
    return MaskReplied(device, reply)


MASK_REPLY_CONSUMER = ControlConsumer(MASK_REPLY, admit_mask_reply)
