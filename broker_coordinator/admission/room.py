"""Whether there is room now for one more journalled payload: its task, its device's rate, bytes and share. Pure.

Without room it is refused for now: nothing is journalled, and the device keeps it.
"""

from broker_coordinator.admission import shares
from broker_coordinator.admission.fleet_view import FleetView, TaskProgress
from fleet_protocol.envelope import Header
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MIB


def require_room(header: Header, device: str, progress: TaskProgress | None, view: FleetView) -> None:
    """Refuse for now what there is no room for.

    Raises:
        ProtocolError: `TASK_PAUSED` or `RATE_LIMITED`.
    """
    if progress is not None and progress.paused:
        raise ProtocolError(
            Reason.TASK_PAUSED, f"task {header.task} is paused by its operator; keep the {header.kind.name}"
        )
    if view.full_after_one(device) is None:
        raise _limited(header, f"{device} sends more than {3600 / view.allowance.interval_seconds:g} updates an hour")
    if not view.has_room(view.byte_allowance, _bytes_of(device)):
        mebibytes = 3600 / view.byte_allowance.interval_seconds / MIB
        raise _limited(header, f"{device} sends more than {mebibytes:g} MiB an hour")
    if progress is None or not _is_beyond_share(header, device, progress, view):
        return
    if not view.has_room(shares.trickle(progress.description.aggregation.buffer_size), _excess_of(device, header.task)):
        raise _limited(header, f"{device} has sent its share of the last updates; others come first")


def use_room(header: Header, device: str, size: int, progress: TaskProgress, view: FleetView) -> None:
    """Note that a payload was accepted whose message is of `size` bytes."""
    view.spend(view.byte_allowance, _bytes_of(device), size)
    if not _is_of_versions(header, progress):
        return
    if _is_beyond_share(header, device, progress, view):
        view.spend(shares.trickle(progress.description.aggregation.buffer_size), _excess_of(device, header.task))
    view.recent_devices(header.task, _window(progress)).add(device)


def _limited(header: Header, why: str) -> ProtocolError:
    return ProtocolError(Reason.RATE_LIMITED, f"{why}; keep the {header.kind.name} and send it later")


def _bytes_of(device: str) -> str:
    return f"bytes of {device}"


def _excess_of(device: str, task: str) -> str:
    return f"excess of {device} in {task}"


def _is_of_versions(header: Header, progress: TaskProgress) -> bool:
    return header.kind.decrypted.name == progress.description.versions_from


def _window(progress: TaskProgress) -> int:
    plan = progress.description.aggregation
    return shares.window(plan.buffer_size, plan.max_staleness)


def _is_beyond_share(header: Header, device: str, progress: TaskProgress, view: FleetView) -> bool:
    if not _is_of_versions(header, progress):
        return False
    recent = view.recent.get(header.task)
    if recent is None:
        return False
    # Who listens is asked only where it matters: that looks at all devices.
    return recent.is_beyond_share(device, others_listen=True) and (
        recent.is_beyond_share(device, others_listen=False) or view.others_listen(device)
    )
