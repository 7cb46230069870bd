"""Whether an authentic update counts: sequence number, task, version, payload, bounds, in this order. Pure."""

import math
from dataclasses import replace

from broker_coordinator.admission.authentication import AdmissionPolicy, Authentic, require_approved
from broker_coordinator.admission.decisions import Accepted, Decision, Repeated, refusal
from broker_coordinator.admission.fleet_view import FleetView, TaskProgress
from broker_coordinator.aggregation.contribution import BufferedUpdate
from fleet_protocol.envelope import Header
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import SigningKey
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE


class _ExcessiveNormError(ProtocolError):
    """A delta longer than is allowed, or than is usual; `found` is its task and norm."""

    def __init__(self, task: str, norm: float, bound: float) -> None:
        super().__init__(Reason.OUT_OF_BOUNDS, f"the delta's norm is {norm:.4g}, at most {bound:.4g} is taken now")
        self.found = task, norm


def admit_update(authentic: Authentic, known: FleetView, policy: AdmissionPolicy) -> Decision:
    device, header = authentic.device.name, authentic.envelope.header
    require_approved(authentic.device)
    if before := known.decided_before(device, header.sequence):
        if before.digest == authentic.opened.digest:
            return Repeated(device, header.sequence, before)
        raise ProtocolError(
            Reason.SEQUENCE_REUSED,
            f"{device} has used the number {header.sequence} for another update; continue after"
            f" {known.highest_sequence(device)}",
        )
    _require_room(header, device, known)
    try:
        return _checked(authentic, _progress_for(header, known), policy.key)
    except ProtocolError as error:
        refused = refusal(
            error, device, authentic.opened.digest, answered=True, verified=True, burned_sequence=header.sequence
        )
        return replace(refused, excessive=error.found) if isinstance(error, _ExcessiveNormError) else refused


def _require_room(header: Header, device: str, known: FleetView) -> None:
    """Refuse what may be sent again later: nothing is journalled, the device keeps its update."""
    progress = known.tasks.get(header.task)
    if progress is not None and progress.paused:
        raise ProtocolError(Reason.TASK_PAUSED, f"task {header.task} is paused by its operator; keep the update")
    if known.full_after_one(device) is None:
        raise ProtocolError(
            Reason.RATE_LIMITED,
            f"{device} sends more than {3600 / known.allowance.interval_seconds:g} updates an hour; keep the update and"
            " send it later",
        )


def _progress_for(header: Header, known: FleetView) -> TaskProgress:
    progress = known.tasks.get(header.task)
    if progress is None:
        raise ProtocolError(Reason.UNKNOWN_TASK, f"task {header.task!r} is not served here")
    staleness = progress.version - header.base_version
    if staleness < 0:
        raise ProtocolError(
            Reason.UNKNOWN_VERSION, f"version {header.base_version} of {header.task}; the newest is {progress.version}"
        )
    if staleness > progress.description.aggregation.max_staleness:
        raise ProtocolError(
            Reason.TOO_STALE,
            f"made from version {header.base_version} of {header.task}, now at {progress.version}: staleness"
            f" {staleness} exceeds max_staleness ({progress.description.aggregation.max_staleness})",
        )
    return progress


def _checked(authentic: Authentic, progress: TaskProgress, key: SigningKey | None) -> Accepted:
    """Open an update's payload with the coordinator's `key` if it is encrypted, decode it and check what is in it.

    Raises:
        ProtocolError: the reason for which it can't be aggregated.
    """
    opened, header = authentic.opened, authentic.envelope.header
    update = opened.update(key)
    if not 1 <= update.samples <= MAX_SAMPLES_PER_UPDATE:
        raise ProtocolError(
            Reason.OUT_OF_BOUNDS, f"{update.samples} samples; allowed are 1 to {MAX_SAMPLES_PER_UPDATE}"
        )
    if not math.isfinite(update.loss):
        raise ProtocolError(Reason.NOT_FINITE, f"the loss is {update.loss}")
    delta = opened.delta(update.packed, progress.description.shapes)
    if (norm := delta.norm()) > progress.max_norm:
        raise _ExcessiveNormError(header.task, norm, progress.max_norm)
    buffered = BufferedUpdate(
        authentic.device.name,
        delta,
        min(update.samples, progress.description.aggregation.max_samples),
        header.base_version,
        progress.version - header.base_version,
        update.life,
    )
    return Accepted(buffered.device, header, opened.message.data, opened.digest, buffered, update.loss, norm)
