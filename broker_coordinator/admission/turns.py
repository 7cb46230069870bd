"""How often devices count in versions that hide each of them, message after message. Pure."""

from broker_coordinator.admission.fleet_view import FleetView, TaskProgress
from broker_coordinator.admission.participation import Participation, require_turn, why_spent
from fleet_protocol.errors import ProtocolError, Reason


def check_turn(device: str, progress: TaskProgress, view: FleetView) -> None:
    """Check that an update of a device may count in the version that it would go into.

    Raises:
        ProtocolError: `TOO_SOON` or `PRIVACY_SPENT`.
    """
    task = progress.description
    if (plan := task.device_privacy) is None:
        return
    if words := why_spent(plan, progress.next_sum - 1, renewed=progress.renewed):
        raise ProtocolError(Reason.PRIVACY_SPENT, f"{task.task} makes no more versions: {words}")
    require_turn(device, task.task, plan, _before(device, task.task, view), progress.next_sum)


def note_turn(device: str, progress: TaskProgress, view: FleetView) -> None:
    """Count an accepted update; `progress` is that before it."""
    task = progress.description
    if task.device_privacy is not None:
        view.participations[task.task, device] = _before(device, task.task, view).again(progress.next_sum)


def _before(device: str, task: str, view: FleetView) -> Participation:
    return view.participations.get((task, device), Participation())
