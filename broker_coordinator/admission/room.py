"""Whether there is room now for one more journalled payload: its task, its device's rate, bytes and share. Pure.

Without room it is refused for now: nothing is journalled, and the device keeps it.
"""

from broker_coordinator.admission import shares
from broker_coordinator.admission.fleet_view import FleetView, TaskProgress
from fleet_protocol.envelope import Header
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.limits import MIB


def take_room(header: Header, device: str, size: int, progress: TaskProgress | None, view: FleetView) -> None:
    """Take room for a payload whose message is of `size` bytes; where there is none, nothing is taken.

    Raises:
        ProtocolError: `TASK_PAUSED` or `RATE_LIMITED`.
    """
    if progress is not None and progress.paused:
        raise ProtocolError(
            Reason.TASK_PAUSED, f"task {header.task} is paused by its operator; keep the {header.kind.name}"
        )
    bytes_of_device = f"{device}/bytes"
    rate_full_at = view.full_after(view.allowance, device)
    bytes_full_at = view.full_after(view.byte_allowance, bytes_of_device, size)
    if rate_full_at is None:
        raise _limited(header, f"{device} sends more than {3600 / view.allowance.interval_seconds:g} updates an hour")
    if bytes_full_at is None:
        mebibytes = 3600 / view.byte_allowance.interval_seconds / MIB
        raise _limited(header, f"{device} sends more than {mebibytes:g} MiB an hour")
    if progress is not None and device not in view.helpers and _is_beyond_share(header, device, progress, view):
        trickle = shares.trickle(progress.description.aggregation.smallest_buffer)
        if not view.spend(trickle, f"{device}/beyond share of {header.task}"):
            raise _limited(header, f"{device} has sent its share of the last updates; others come first")
    for bucket, key, full_at in (
        (view.allowance, device, rate_full_at),
        (view.byte_allowance, bytes_of_device, bytes_full_at),
    ):
        if bucket.interval_seconds:
            view.full_at[key] = full_at


def note_accepted(header: Header, device: str, progress: TaskProgress, view: FleetView) -> None:
    """Count an accepted payload in its device's share; a helper's stands for those of many devices."""
    if _is_of_versions(header, progress) and device not in view.helpers:
        plan = progress.description.aggregation
        view.recent_devices(header.task, shares.window(plan.smallest_buffer, plan.max_staleness)).add(device)


def _limited(header: Header, why: str) -> ProtocolError:
    return ProtocolError(Reason.RATE_LIMITED, f"{why}; keep the {header.kind.name} and send it later")


def _is_of_versions(header: Header, progress: TaskProgress) -> bool:
    return header.kind.decrypted.name == progress.description.versions_from


def _is_beyond_share(header: Header, device: str, progress: TaskProgress, view: FleetView) -> bool:
    recent = view.recent.get(header.task)
    if recent is None or not _is_of_versions(header, progress):
        return False
    # Who listens is asked only where it matters: that looks at all devices.
    return recent.is_beyond_share(device, others_listen=True) and (
        recent.is_beyond_share(device, others_listen=False) or view.others_listen(device)
    )
