"""What a round computes while its task awaits the fleet's scale: how the device's samples are distributed. Pure.

docs/decisions/absurd-readings.md says why a few far values count as less far.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bundle_runtime.samples import Samples
from edge_agent.worker.contract import TrainingResult
from fleet_protocol.codec import Moments
from fleet_protocol.scaling import DEVIATION_OF_CONSTANTS, MOST_DEVIATIONS, UNITS_FACTOR, Block, Scale
from fleet_protocol.task_description import TaskDescription

_Prepare = Callable[[NDArray[np.float32]], NDArray[np.float32]]

FAR_SHARE: Final = 1 / 16
"""Of a column's values, at either end: so few may be absurd, such as -9999 where a sensor failed."""
FARTHEST: Final = 3.0
"""They count as so many times as far as the others reach. Of normally distributed values that is 10.7 deviations from
the mean, next to `MOST_DEVIATIONS`, further than which nothing counts in training."""

LARGEST: Final = float(np.finfo(np.float32).max)


def measure(samples: Samples, task: TaskDescription) -> TrainingResult:
    """The moments of each column whose scale is awaited, without its absurd values; nothing is trained."""
    awaited = [part.moments(without_absurd) for part in _scaled(samples, task) if part.scale.awaited]
    first, *rest = awaited
    for each in rest:
        first = first.beside(each)
    return TrainingResult(
        packed=b"",
        residual=b"",
        samples=len(samples),
        steps=0,
        trained_through=samples.newest,
        loss=0.0,
        statistics=first.encode(),
    )


def without_absurd(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """The columns of f32[N, C] with their few far values brought nearer; those where nothing else varies stay."""
    there = np.count_nonzero(~np.isnan(table), axis=0)
    far = np.floor(FAR_SHARE * there).astype(np.int64)
    ends = np.maximum([far, there - 1 - far], 0)
    ordered = np.partition(table, np.unique(ends), axis=0)  # NaN comes last
    lowest, highest = np.take_along_axis(ordered, ends, axis=0).astype(np.float64)
    reach = np.where(highest > lowest, FARTHEST * (highest - lowest), np.inf)
    limits = np.clip([lowest - reach, highest + reach], -LARGEST, LARGEST).astype(np.float32)
    nearer: NDArray[np.float32] = np.clip(table, *limits)
    return nearer


def in_other_units(samples: Samples, task: TaskDescription) -> str:
    """Which column of this device's samples has another unit than the fleet's, in words; empty where none has."""
    parts = _scaled(samples, task)
    return next(filter(None, (part.far(part.moments(without_absurd), UNITS_FACTOR) for part in parts)), "")


def unlike_the_fleet(samples: Samples, task: TaskDescription) -> str:
    """Which column has a mean that training hardly takes for a value, or lies so near to 0 that it may have a larger
    unit, in words; empty where none has.
    """
    for part in _scaled(samples, task):
        moments = part.moments()
        if words := part.far(moments, MOST_DEVIATIONS) or part.tiny(moments):
            return words
    return ""


@dataclass(frozen=True, slots=True)
class _Scaled:
    """What a sample has of one kind, [N, ...], and the scale of the blocks in it."""

    name: str
    values: NDArray[np.generic]
    blocks: Sequence[Block]
    scale: Scale

    def moments(self, prepared: _Prepare = lambda table: table) -> Moments:
        """Of its columns, each `prepared` first."""
        table = self.values.astype(np.float32).reshape(len(self.values), -1)
        columns = [table[:, block.place].reshape(-1, block.columns) for block in self.blocks]
        first, *others = (Moments.of(prepared(each)) for each in columns)
        for other in others:
            first = first.beside(other)
        return first

    def far(self, moments: Moments, deviations: float) -> str:
        """Which column has a mean more than so many of the fleet's deviations from the fleet's, in words."""
        scale = self.scale
        distances = np.abs(moments.means - scale.mean) / scale.deviation
        varies = np.array(scale.deviation) != DEVIATION_OF_CONSTANTS
        far = (distances > deviations) & varies & (moments.counts > 0)
        if not far.any():
            return ""
        column = int(np.argmax(far))
        return (
            f"{self.name} {column} has the mean {moments.means[column]:.4g} on this device,"
            f" {scale.mean[column]:.4g} in the fleet, which is {distances[column]:.3g} of its deviations away"
        )

    def tiny(self, moments: Moments) -> str:
        """Which column varies, and lies, within a share of the fleet's that only another unit has, in words."""
        spread = np.array(self.scale.deviation)
        found = moments.deviations
        size, usual_size = np.hypot(moments.means, found), np.hypot(self.scale.mean, spread)
        varies = (spread != DEVIATION_OF_CONSTANTS) & (found > 0)
        tiny = varies & (found * UNITS_FACTOR < spread) & (size * UNITS_FACTOR < usual_size)
        if not tiny.any():
            return ""
        column = int(np.argmax(tiny))
        return (
            f"{self.name} {column} deviates by {found[column]:.4g} from its mean {moments.means[column]:.4g} on this"
            f" device, by {spread[column]:.4g} from {self.scale.mean[column]:.4g} in the fleet"
        )


def _scaled(samples: Samples, task: TaskDescription) -> list[_Scaled]:
    """Inputs and targets, where they have a scale."""
    if task.scaling.inputs is None and task.scaling.targets is None:
        return []
    parts = (
        ("input", samples.inputs, task.input_blocks, task.scaling.inputs),
        ("label", samples.labels, task.target_blocks, task.scaling.targets),
    )
    return [_Scaled(name, values, blocks, scale) for name, values, blocks, scale in parts if scale is not None]
