"""Whether there is room now for one more journalled payload: its task, its device's rate, bytes and share. Pure.

Without room it is refused for now: nothing is journalled, and the device keeps it.
"""

from broker_coordinator.admission import shares
from broker_coordinator.admission.fleet_view import FleetView, TaskProgress
from fleet_protocol.envelope import Header
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MIB


def require_room(header: Header, device: str, size: int, progress: TaskProgress | None, view: FleetView) -> None:
    """Refuse for now what there is no room for; `size` is in bytes, as it travels.

    Raises:
        ProtocolError: `TASK_PAUSED` or `RATE_LIMITED`.
    """
    if progress is not None and progress.paused:
        raise ProtocolError(
            Reason.TASK_PAUSED, f"task {header.task} is paused by its operator; keep the {header.kind.name}"
        )
    if view.allowance.after_one(view.full_at.get(device, view.now), view.now) is None:
        raise _limited(header, f"{device} sends more than {3600 / view.allowance.interval_seconds:g} updates an hour")
    if view.byte_allowance.after_some(view.bytes_full_at.get(device, view.now), view.now, size) is None:
        mebibytes = 3600 / view.byte_allowance.interval_seconds / MIB
        raise _limited(header, f"{device} sends more than {mebibytes:g} MiB an hour")
    if progress is not None and _is_of_versions(header, progress) and _excess(device, progress, view):
        bucket = shares.trickle(progress.description.aggregation.buffer_size)
        if bucket.after_one(view.excess_full_at.get((header.task, device), view.now), view.now) is None:
            raise _limited(
                header, f"{device} has sent its share of the last updates of {header.task}; others come first"
            )


def use_rate(device: str, view: FleetView) -> None:
    """Note that a journalled payload of a device was decided on."""
    if view.allowance.interval_seconds:
        full_at = view.allowance.after_one(view.full_at.get(device, view.now), view.now)
        if full_at is not None:
            view.full_at[device] = full_at


def use_room(header: Header, device: str, size: int, progress: TaskProgress, view: FleetView) -> None:
    """Note that a payload of `size` bytes was accepted."""
    if view.byte_allowance.interval_seconds:
        full_at = view.byte_allowance.after_some(view.bytes_full_at.get(device, view.now), view.now, size)
        if full_at is not None:
            view.bytes_full_at[device] = full_at
    if not _is_of_versions(header, progress):
        return
    if _excess(device, progress, view):
        place = header.task, device
        bucket = shares.trickle(progress.description.aggregation.buffer_size)
        full_at = bucket.after_one(view.excess_full_at.get(place, view.now), view.now)
        if full_at is not None:
            view.excess_full_at[place] = full_at
    size_of_window = _window(progress)
    view.recent[header.task] = (*view.recent.get(header.task, ())[1 - size_of_window :], device)


def _limited(header: Header, why: str) -> ProtocolError:
    return ProtocolError(Reason.RATE_LIMITED, f"{why}; keep the {header.kind.name} and send it later")


def _is_of_versions(header: Header, progress: TaskProgress) -> bool:
    return header.kind.decrypted.name == progress.description.versions_from


def _window(progress: TaskProgress) -> int:
    plan = progress.description.aggregation
    return shares.window(plan.buffer_size, plan.max_staleness)


def _excess(device: str, progress: TaskProgress, view: FleetView) -> bool:
    size = _window(progress)
    recent = view.recent.get(progress.description.task, ())[-size:]
    # Asked only where it matters: it looks at all devices.
    return shares.is_beyond_share(recent, device, size, others_listen=True) and (
        shares.is_beyond_share(recent, device, size, others_listen=False) or view.others_listen(device)
    )
