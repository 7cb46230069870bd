"""A mask helper replies to what it was asked about a cohort. Pure."""

from functools import cache

from broker_coordinator.admission.consumer import Authentic, ControlConsumer
from broker_coordinator.admission.decisions import Decision, MaskReplied
from broker_coordinator.admission.fleet_view import FleetView
from broker_coordinator.admission.settings import AdmissionSettings
from broker_coordinator.consumers.file_requests import requesting
from fleet_host.rate_limit import TokenBucket
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import MASK_REPLY, MaskReply
from secure_aggregation.asking import ASK_AGAIN_SECONDS

REPLIES_AT_ONCE = 16
"""Of one task: three steps, and some sets of which devices are left out."""


def admit_mask_reply(reply: MaskReply, authentic: Authentic, view: FleetView, _settings: AdmissionSettings) -> Decision:
    """From a helper that a task names."""
    device = requesting(authentic)
    plans = (progress.description.masks for progress in view.tasks.values())
    tasks = sum(plan is not None and device.name in plan.helpers for plan in plans)
    if not tasks:
        raise ProtocolError(Reason.UNKNOWN_TASK, f"{device.name} is a mask helper of no task that is served here")
    if not view.spend(_allowance(tasks), f"{device.name}/mask replies"):
        raise ProtocolError(
            Reason.RATE_LIMITED,
            f"mask helper {device.name} replies more often than it is asked, which is once in {ASK_AGAIN_SECONDS:g}"
            f" seconds for each of {tasks} tasks; it is asked again",
        )
    return MaskReplied(device, reply)


@cache
def _allowance(tasks: int) -> TokenBucket:
    """Twice what a helper of so many tasks is asked, and at once what a cohort's steps may come to."""
    return TokenBucket(ASK_AGAIN_SECONDS / (2 * tasks), REPLIES_AT_ONCE * tasks)


MASK_REPLY_CONSUMER = ControlConsumer(MASK_REPLY, admit_mask_reply)
