"""A version of a task that hides each device: the sum of clipped updates, with noise, over `buffer_size`. Pure.

    step = (sum of min(1, clip / |delta|) * delta  +  w) / buffer_size

Each update counts once, whatever its samples and its staleness: a weight would change what one device can move. The
divisor is the task's, not the number of updates. Sums are exact, in whole numbers of a unit, each update cut off to
those: one device moves them by `clip` and not by a rounding more (docs/decisions/devices-hidden-by-one-mechanism.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.device_privacy.version_noise import UNITS_PER_DEVIATION, VersionNoise
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.strategies import Step
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.privacy.device_privacy import DevicePrivacy
from fleet_protocol.task_description import TaskDescription

BELOW_CLIP = 1 - 2.0**-40
"""An update that is scaled down ends so far below the clip that no rounding of its norm passes it."""


@dataclass(frozen=True, slots=True)
class ClippedSum:
    """A part of a version's sum: whole numbers of units, float64, as long as the flat weights; `noise` once."""

    units: NDArray[np.float64]
    noise: tuple[VersionNoise, ...] = ()

    def __add__(self, other: "ClippedSum") -> "ClippedSum":
        return ClippedSum(self.units + other.units, self.noise + other.noise)


def partial(state: ServerState, items: Sequence[BufferedUpdate | VersionNoise], plan: DevicePrivacy) -> ClippedSum:
    """The sum of some clipped updates, with the version's noise where that is among the `items`."""
    total = np.zeros(state.weights.size)
    unit = unit_of(plan)
    for item in items:
        if isinstance(item, BufferedUpdate):
            np.add.at(total, item.delta.indices, clipped(item.delta, plan.clip, unit))
    return ClippedSum(total, tuple(item for item in items if isinstance(item, VersionNoise)))


def clipped(delta: SparseUpdate, clip: float, unit: float) -> NDArray[np.float64]:
    """The values of an update of norm `clip` at most, as whole numbers of units, each cut off towards zero."""
    norm = delta.norm()
    scale = 1.0 if norm <= clip * BELOW_CLIP else clip * BELOW_CLIP / norm
    return np.trunc(delta.values.astype(np.float64) * (scale / unit))


def unit_of(plan: DevicePrivacy) -> float:
    """What a whole number stands for."""
    return plan.deviation / UNITS_PER_DEVIATION


def finish(state: ServerState, total: ClippedSum, task: TaskDescription, plan: DevicePrivacy) -> Step:
    """The step along the noised mean.

    Raises:
        ConfigurationError: the sum has no noise, or another number of noises than one: nothing may be told of it.
    """
    if len(total.noise) != 1:
        raise ConfigurationError(
            f"version {state.version + 1} of {task.task} is a sum with {len(total.noise)} noises, and [privacy.devices]"
            " promises exactly one; report it"
        )
    noised = total.units + total.noise[0].units(total.units.size)
    return Step(noised * (unit_of(plan) / task.aggregation.smallest_buffer))
