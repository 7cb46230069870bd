"""Feature statistics: checks that samples could have them; each device's newest make the task's head. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from broker_coordinator.admission.consumer import Admitted, Offered, VersionConsumer
from broker_coordinator.aggregation.server_state import Remembered, ServerState
from broker_coordinator.aggregation.solved_heads import most_counted, pooled, solve
from broker_coordinator.aggregation.strategies import Recall
from broker_coordinator.consumers.possible_statistics import check_possible
from fleet_protocol.codec import ClassStatistics, decode_class_statistics
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import FEATURE_STATISTICS, FeatureStatistics
from fleet_protocol.solved_head import SolvedHead
from fleet_protocol.task_description import TaskDescription

Report = tuple[str, ClassStatistics]
"""The device, and what it says of its features."""

MAX_REMEMBERED: Final = 4096
"""Devices whose last number is known at admission, those that sent last."""


class FeatureStatisticsFacts(msgspec.Struct, frozen=True, gc=False):
    """What the journal tells of feature statistics without being asked for their bytes; `sequence` is their number."""

    samples: int
    sequence: int


@dataclass(slots=True)
class LastNumbers:
    """The sequence number of each device's newest statistics."""

    by_device: dict[str, int] = field(default_factory=dict)

    def copy(self) -> "LastNumbers":
        """One that may be changed by itself."""
        return LastNumbers(self.by_device.copy())

    def note(self, device: str, sequence: int) -> None:
        """Note one more; the device that sent longest ago gives way."""
        self.by_device.pop(device, None)
        self.by_device[device] = sequence
        if len(self.by_device) > MAX_REMEMBERED:
            del self.by_device[next(iter(self.by_device))]


def admit(offered: Offered[FeatureStatistics]) -> Admitted[FeatureStatisticsFacts, Report]:
    """Check that the statistics are newer than the device's last, and could be of samples that the task takes.

    Raises:
        ProtocolError: the reason for which they can't be added up.
    """
    sequence, memory = offered.header.sequence, offered.memory or LastNumbers()
    if sequence < (newest := memory.by_device.get(offered.device, 0)):
        raise ProtocolError(
            Reason.TOO_STALE, f"statistics {sequence} of {offered.device} come after {newest}, which replace them"
        )
    report = item(offered, None)
    check_possible(report[1], offered.task, _plan(offered.task))
    return Admitted(FeatureStatisticsFacts(report[1].samples, sequence), report)


def item(offered: Offered[FeatureStatistics], _: FeatureStatisticsFacts | None) -> Report:
    """Journalled statistics as they are added up."""
    task, plan = offered.task, _plan(offered.task)
    packed = offered.payload.packed
    statistics = decode_class_statistics(packed, task.label.classes, task.feature_count, plan.precision, plan.solver)
    return offered.device, statistics


def _plan(task: TaskDescription) -> SolvedHead:
    if task.solved_head is None:
        raise ProtocolError(Reason.MALFORMED, f"{task.task} takes no feature statistics; follow its manifest")
    return task.solved_head


def _remember_number(memory: LastNumbers, device: str, facts: FeatureStatisticsFacts, _: TaskDescription) -> None:
    memory.note(device, facts.sequence)


def _buffer_size(task: TaskDescription) -> int:
    return task.aggregation.smallest_buffer


def _partial(_: ServerState, reports: Sequence[Report], _task: TaskDescription) -> tuple[Report, ...]:
    return tuple(reports)


def _finish(state: ServerState, reports: tuple[Report, ...], task: TaskDescription) -> ServerState:
    """The head of all devices' newest statistics, whatever the version before it was."""
    plan = _plan(task)
    newest = _remembered(state, reports, task)
    most = most_counted(newest, plan, task.aggregation.max_samples)
    head = solve(pooled(newest, plan.solver, most), plan)
    return ServerState(state.version + 1, head.flat(), state.moments, newest, state.step)


def _remembered(state: ServerState, reports: Iterable[Report], _: TaskDescription) -> Remembered:
    return {**state.remembered, **dict(reports)}


def _recall(_: TaskDescription) -> Recall:
    return Recall.LAST_UPDATES


FEATURE_STATISTICS_CONSUMER = VersionConsumer(
    FEATURE_STATISTICS,
    FeatureStatisticsFacts,
    admit,
    item,
    _buffer_size,
    _partial,
    _finish,
    memory=LastNumbers,
    remember=_remember_number,
    recall=_recall,
    remembered=_remembered,
)
"""Of the kind `feature statistics`."""
