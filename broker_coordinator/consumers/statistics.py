"""Statistics: checks how a device says its samples are distributed; enough of them make the task's scale. Pure."""

import math
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from broker_coordinator.admission.consumer import Admitted, Offered, ScaleConsumer
from broker_coordinator.aggregation.fleet_scale import FleetScale, awaited_columns, fleet_scale, rescaled
from fleet_protocol.codec import Moments, decode_moments
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.kinds import STATISTICS, Statistics
from fleet_protocol.limits import MAX_SAMPLES_PER_UPDATE
from fleet_protocol.sample_rules import LARGEST_FLOAT32
from fleet_protocol.task_description import TaskDescription

Report = tuple[str, Moments]
"""The device, and its moments."""


class StatisticsFacts(msgspec.Struct, frozen=True, gc=False):
    """What the journal tells of statistics without being asked for their bytes."""

    samples: int


def admit(offered: Offered[Statistics]) -> Admitted[StatisticsFacts, Report]:
    """Check that the task awaits statistics, and that they could be of samples that it takes.

    Raises:
        ProtocolError: the reason for which they can't be added up.
    """
    task, samples = offered.task, offered.payload.samples
    if not task.scaling.is_awaited:
        raise ProtocolError(Reason.MALFORMED, f"{task.task} awaits no statistics; follow its manifest")
    if not 1 <= samples <= MAX_SAMPLES_PER_UPDATE:
        raise ProtocolError(Reason.OUT_OF_BOUNDS, f"{samples} samples; allowed are 1 to {MAX_SAMPLES_PER_UPDATE}")
    facts = StatisticsFacts(samples)
    report = item(offered, facts)
    _check_moments(report[1], samples, task)
    return Admitted(facts, report)


def item(offered: Offered[Statistics], _: StatisticsFacts) -> Report:
    """Journalled statistics as they are added up."""
    return offered.device, decode_moments(offered.payload.moments, sum(awaited_columns(offered.task)))


def _check_moments(moments: Moments, samples: int, task: TaskDescription) -> None:
    """Every sum is one that samples within the task's bounds can have, so that no sum of them overflows."""
    inputs, targets = awaited_columns(task)
    blocks = (task.input_blocks if inputs else []) + (task.target_blocks if targets else [])
    columns = [block.columns for block in blocks]
    most = samples * np.repeat([float(block.size // block.columns) for block in blocks], columns)
    lowest = np.repeat([block.lowest for block in blocks], columns).clip(min=-LARGEST_FLOAT32)
    highest = np.repeat([block.highest for block in blocks], columns).clip(max=LARGEST_FLOAT32)
    slack = 1e-9 * (highest - lowest)
    there = moments.counts > 0
    fits = (
        ((moments.counts >= 0) & (moments.counts <= most) & (moments.counts % 1 == 0)),
        ~there | ((moments.means >= lowest - slack) & (moments.means <= highest + slack)),
        (moments.squares >= 0) & (moments.squares <= moments.counts * np.square(highest - lowest) + math.ulp(1.0)),
    )
    for name, rows, good in zip(
        ("count", "mean", "sum of squares"), (moments.counts, moments.means, moments.squares), fits, strict=True
    ):
        if not good.all():
            column = int(np.argmin(good))
            raise ProtocolError(
                Reason.OUT_OF_BOUNDS,
                f"the {name} of column {column} is {rows[column]:g}, which no {samples} samples within"
                f" {lowest[column]:g} to {highest[column]:g} have",
            )


def _buffer_size(_: TaskDescription) -> int:
    """A scale can be made of one."""
    return 1


def _partial(_: bytes, reports: Sequence[Report], _task: TaskDescription) -> tuple[Report, ...]:
    return tuple(reports)


def _finish(_: bytes, reports: tuple[Report, ...], _task: TaskDescription) -> bytes:
    """Of a device that reported twice, the last counts."""
    return msgspec.json.encode(fleet_scale(dict(reports)))


def read_scale(state: bytes) -> FleetScale:
    """What an aggregate of statistics holds."""
    return msgspec.json.decode(state, type=FleetScale)


def _devices(reports: Iterable[Report]) -> int:
    return len({device for device, _ in reports})


def _rescaled(task: TaskDescription, state: bytes) -> TaskDescription:
    return rescaled(task, read_scale(state))


STATISTICS_CONSUMER = ScaleConsumer(
    STATISTICS,
    StatisticsFacts,
    admit,
    item,
    _buffer_size,
    _partial,
    _finish,
    devices=_devices,
    rescaled=_rescaled,
)
