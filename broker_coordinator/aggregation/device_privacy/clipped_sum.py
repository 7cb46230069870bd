"""A version of a task that hides each device: the sum of clipped updates, with noise, over `buffer_size`. Pure.

    step = (sum of min(1, clip / |delta|) * delta  +  w) / buffer_size

Each update counts once, whatever its samples and its staleness: a weight would change what one device can move. The
divisor is the task's, not the number of updates. Sums are exact, in whole numbers of a unit, each update cut off to
those: one device moves them by `clip` and not by a rounding more (docs/decisions/devices-hidden-by-one-mechanism.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.contribution import BufferedUpdate
from broker_coordinator.aggregation.device_privacy.version_clip import VersionClip
from broker_coordinator.aggregation.device_privacy.version_noise import VersionNoise
from broker_coordinator.aggregation.server_state import ServerState
from broker_coordinator.aggregation.server_step import advanced
from broker_coordinator.aggregation.strategies import Step
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.privacy.device_privacy import DevicePrivacy
from fleet_protocol.task_description import TaskDescription


@dataclass(frozen=True, slots=True)
class ClippedSum:
    """A part of a version's sum: whole numbers of units, float64, as long as the flat weights and what counts behind
    them (`VersionClip`); of so many `updates`; `noise` once.
    """

    units: NDArray[np.float64]
    noise: tuple[VersionNoise, ...] = ()
    updates: int = 0

    def __add__(self, other: "ClippedSum") -> "ClippedSum":
        return ClippedSum(self.units + other.units, self.noise + other.noise, self.updates + other.updates)


def partial(
    state: ServerState, items: Sequence[BufferedUpdate | VersionNoise], plan: DevicePrivacy, buffer_size: int
) -> ClippedSum:
    """The sum of some clipped updates, with the version's noise where that is among the `items`."""
    clip = VersionClip.of(state.clip, plan, buffer_size)
    total = np.zeros(state.weights.size + clip.counts)
    noise = tuple(item for item in items if isinstance(item, VersionNoise))
    for item in items:
        if isinstance(item, BufferedUpdate):
            clip.add(item.delta, total)
    return ClippedSum(total, noise, len(items) - len(noise))


def finish(state: ServerState, total: ClippedSum, task: TaskDescription, plan: DevicePrivacy) -> ServerState:
    """The version after `state`, by a step along the noised mean.

    Raises:
        ConfigurationError: the sum has no noise, or another number of noises than one: nothing may be told of it.
    """
    if len(total.noise) != 1:
        raise ConfigurationError(
            f"version {state.version + 1} of {task.task} is a sum with {len(total.noise)} noises, and [privacy.devices]"
            " promises exactly one; report it"
        )
    buffer_size = task.aggregation.smallest_buffer
    clip = VersionClip.of(state.clip, plan, buffer_size)
    noised = total.units + total.noise[0].units(total.units.size)
    made = advanced(state, Step(noised[: state.weights.size] * (clip.unit / buffer_size)), task.aggregation)
    return replace(made, clip=clip.next_norm(float(noised[-1]), total.updates, plan, buffer_size))
