"""The clip of one version of a task that hides each device: fixed, or one that follows the norms of updates. Pure.

With a clip that follows, one more entry stands behind those of the weights. Each update adds to the joint vector

    (alpha * update / clip,  beta / 2 if |update| <= clip else -beta / 2),      alpha^2 + beta^2 / 4 = 1

which has norm 1 at most, and one noise hides both. So the clip of the next version follows from what is told anyway,
and epsilon is that of the sum alone (docs/decisions/adaptive-clip-in-one-mechanism.md).
"""

import math
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.device_privacy.version_noise import UNITS_PER_DEVIATION
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.privacy.adaptive_clip import count_scale
from fleet_protocol.privacy.device_privacy import DevicePrivacy

BELOW_CLIP: Final = 1 - 2.0**-40
"""What is scaled down ends so far below what a device may move that no rounding passes it."""


@dataclass(frozen=True, slots=True)
class VersionClip:
    """Updates are scaled down to the Euclidean `norm`; a whole number in their sum stands for `unit`. Of a clip that
    follows norms, `half` is what an update within it adds to the count, in whole numbers, and a longer one takes away;
    0 of a fixed one, which counts nothing.
    """

    norm: float
    unit: float
    half: float = 0.0

    @classmethod
    def of(cls, norm: float | None, plan: DevicePrivacy, buffer_size: int) -> Self:
        """That of the version behind a state with this `clip`, the plan's where it is None."""
        norm = plan.clip if norm is None else norm
        if plan.adaptive_clip is None:
            return cls(norm, plan.deviation_in_clips * norm / UNITS_PER_DEVIATION)
        half = count_scale(plan.deviation_in_clips, buffer_size) / 2
        unit = plan.deviation_in_clips * norm / UNITS_PER_DEVIATION / math.sqrt(1 - half**2)
        return cls(norm, unit, math.trunc(half * BELOW_CLIP * UNITS_PER_DEVIATION / plan.deviation_in_clips))

    @property
    def counts(self) -> int:
        """Entries behind those of the weights."""
        return 1 if self.half else 0

    def add(self, delta: SparseUpdate, total: NDArray[np.float64]) -> None:
        """Add an update, cut off to whole numbers, to the sum `total`, float64 [weights + `counts`], in place."""
        norm = delta.norm()
        scale = 1.0 if norm <= self.norm * BELOW_CLIP else self.norm * BELOW_CLIP / norm
        np.add.at(total, delta.indices, np.trunc(delta.values.astype(np.float64) * (scale / self.unit)))
        if self.counts:
            total[-1] += self.half if norm <= self.norm else -self.half

    def next_norm(self, noised_count: float, updates: int, plan: DevicePrivacy, buffer_size: int) -> float | None:
        """The clip of the version after one of so many updates; None of a fixed one.

        It is float32, as all that is kept between versions, unless it is one of its bounds.
        """
        adaptive = plan.adaptive_clip
        if adaptive is None:
            return None
        found = adaptive.after(self.norm, noised_count / (2 * self.half), updates, buffer_size)
        return min(max(float(np.float32(found)), adaptive.at_least), adaptive.at_most)
