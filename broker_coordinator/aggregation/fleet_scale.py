"""A task's scale, from what its devices say of their samples. Pure. docs/decisions/fleet-scale.md"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.bounds import SAMPLES_FACTOR
from fleet_protocol.codec import Moments, pooled
from fleet_protocol.scaling import DEVIATION_OF_CONSTANTS, SMALLEST_DEVIATION, UNITS_FACTOR, Scale, Scaling
from fleet_protocol.task_description import TaskDescription

FEWEST_TO_COMPARE: Final = 3
"""Of two devices, nobody can say which one has the other units."""

FLOAT32_STEP: Final = 2.0**-20
"""Of the mean: a column that deviates by less is constant but for the rounding of float32."""


class FleetScale(msgspec.Struct, frozen=True):
    """The aggregate of statistics: how the awaited columns of `samples` samples of `devices` devices are distributed.

    `left_out` says of each device that is not among them what is unusual about it.
    """

    means: list[float]
    deviations: list[float]
    devices: int
    samples: int
    left_out: dict[str, str]


@dataclass(frozen=True, slots=True)
class Enough:
    """So many reports make a scale once the first of them is `seconds` old: a `share` of the devices, and `least`."""

    seconds: float
    share: float
    least: int


PATIENCE: Final = (
    Enough(0.0, 0.5, FEWEST_TO_COMPARE),
    Enough(600.0, 0.5, 1),
    Enough(3_600.0, 0.0, FEWEST_TO_COMPARE),
    Enough(86_400.0, 0.0, 1),
)
"""Nothing waits for one device: half of a fleet is enough at once, or what has come within an hour if units can be
compared in it, or within a day, in which every device that lives by daylight has been awake."""


def is_enough(reports: int, devices: int, waited: float) -> bool:
    """Whether `reports` of `devices` approved ones make the scale, `waited` seconds after the first."""
    return any(waited >= enough.seconds and reports >= max(enough.share * devices, enough.least) for enough in PATIENCE)


def next_look(reports: int, devices: int, waited: float) -> float | None:
    """After how many more seconds the reports there are will be enough; None where they never are."""
    looks = (each.seconds for each in PATIENCE if reports >= max(each.share * devices, each.least))
    return min((seconds - waited for seconds in looks), default=None)


def fleet_scale(reports: Mapping[str, Moments]) -> FleetScale:
    """The scale of at least one device's moments, by its name. It does not depend on their order."""
    left_out = _unlike_the_others(reports)
    kept = [moments for device, moments in reports.items() if device not in left_out]
    together = pooled(_bounded(kept))
    is_constant = together.deviations <= np.maximum(FLOAT32_STEP * np.abs(together.means), SMALLEST_DEVIATION)
    return FleetScale(
        means=together.means.tolist(),
        deviations=np.where(is_constant, DEVIATION_OF_CONSTANTS, together.deviations).tolist(),
        devices=len(kept),
        samples=int(max(pooled(kept).counts, default=0)),
        left_out=left_out,
    )


def rescaled(description: TaskDescription, scale: FleetScale) -> TaskDescription:
    """The task with the fleet's scale in place of the awaited one."""
    columns = list(zip(scale.means, scale.deviations, strict=True))
    inputs, rest = _filled(description.scaling.inputs, columns)
    targets, _ = _filled(description.scaling.targets, rest)
    return msgspec.structs.replace(description, scaling=Scaling(inputs, targets))


def awaited_columns(description: TaskDescription) -> tuple[int, int]:
    """How many columns of inputs, and of targets, the task awaits the scale of."""
    scales = description.scaling.inputs, description.scaling.targets
    inputs, targets = (len(scale.mean) if scale is not None and scale.awaited else 0 for scale in scales)
    return inputs, targets


def constant_targets(before: TaskDescription, rescaled: TaskDescription) -> list[int]:
    """Which numbers to learn the fleet found to be the same in all samples, when it made the scale awaited `before`."""
    awaited, made = before.scaling.targets, rescaled.scaling.targets
    if awaited is None or made is None or not awaited.awaited:
        return []
    return [column for column, deviation in enumerate(made.deviation) if deviation == DEVIATION_OF_CONSTANTS]


def _filled(
    scale: Scale | None, columns: Sequence[tuple[float, float]]
) -> tuple[Scale | None, Sequence[tuple[float, float]]]:
    """A scale with the first of the columns, where it awaits them, and those that are left."""
    if scale is None or not scale.awaited:
        return scale, columns
    own, rest = columns[: len(scale.mean)], columns[len(scale.mean) :]
    return Scale([mean for mean, _ in own], [deviation for _, deviation in own]), rest


def _bounded(kept: Sequence[Moments]) -> list[Moments]:
    """Each with no more weight than `SAMPLES_FACTOR` times the median, so that none decides alone."""
    most = SAMPLES_FACTOR * np.median([moments.counts for moments in kept], axis=0)
    return [moments.weighing(np.maximum(most, 1)) for moments in kept]


def _unlike_the_others(reports: Mapping[str, Moments]) -> dict[str, str]:
    """Of each device with a column that is far from what is usual, or spreads far wider or less, what is unusual."""
    there = np.array([moments.counts > 0 for moments in reports.values()])
    compared = there & (there.sum(axis=0) >= FEWEST_TO_COMPARE)
    means = np.where(compared, [moments.means for moments in reports.values()], np.nan)
    deviations = np.where(compared, [moments.deviations for moments in reports.values()], np.nan)
    usual = _Usual.of(means, deviations)
    found = {}
    for device, rows in sorted(zip(reports, zip(means, deviations, strict=True), strict=True)):
        if words := usual.what_is_unusual(*rows):
            found[device] = words
    return found if 2 * len(found) < len(reports) else {}  # what most devices are is not unusual


@dataclass(frozen=True, slots=True)
class _Usual:
    """Medians over the devices, float64 [C]; NaN where there is nothing to compare. `spread` includes how far devices'
    means are apart, `size` is the root mean square of the values.
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    spread: NDArray[np.float64]
    size: NDArray[np.float64]

    @classmethod
    def of(cls, means: NDArray[np.float64], deviations: NDArray[np.float64]) -> "_Usual":
        """Those of devices' means and deviations [N, C]. A device whose column is constant says nothing of a spread."""
        mean = _median(means)
        deviation = _median(np.where(deviations > 0, deviations, np.nan))
        spread = np.nan_to_num(deviation) + _median(np.abs(means - mean))
        return cls(mean, deviation, spread, _median(np.hypot(means, deviations)))

    def what_is_unusual(self, means: NDArray[np.float64], deviations: NDArray[np.float64]) -> str:
        """Of one device [C], about the first such column; empty where it is like the others."""
        distances = np.abs(means - self.mean)
        rules = (
            (deviations > UNITS_FACTOR * self.deviation, "spreads {wide:.3g} times as wide as usual"),
            (
                (self.spread > 0) & (distances > UNITS_FACTOR * self.spread),
                "has the mean {mean:.4g}, usual is {usual:.4g}",
            ),
            (
                (deviations > 0)
                & (deviations * UNITS_FACTOR < self.deviation)
                & (np.hypot(means, deviations) * UNITS_FACTOR < self.size),
                "spreads {wide:.3g} times as wide as usual",
            ),
        )
        for unusual, words in rules:
            if unusual.any():
                column = int(np.argmax(unusual))
                wide = deviations[column] / self.deviation[column]
                said = words.format(wide=wide, mean=means[column], usual=self.mean[column])
                return f"column {column} {said}"
        return ""


def _median(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the first axis, without NaN; NaN where there is nothing else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy says so of each such column
        median: NDArray[np.float64] = np.nanmedian(rows, axis=0)
    return median
