"""Which updates are suspicious beside what other devices sent last, and which of these are held. Pure.

    z(x) = (x - median of x_j) / max(1.4826 * median |x_j - median|, least)     x_j of the other devices
    suspicious where     z(|u|) > threshold     or     c(u) < 0 and z(c(u)) < -threshold

|u| is an update's norm, as it came. Its c(u) is the cosine with the sum of d_j = u_j / |u_j|, where u_j is the last
update of device j that a version holds; that of d_j itself is with the sum of the others, without its own. z is the
robust z-score of Iglewicz & Hoaglin 1993, who also say the usual threshold; 1.4826 makes the median distance of
Gaussians their deviation. A device is never compared with itself, and counts once however much it sends. Updates of
norm 0 have no direction and no scale: they say nothing of what is usual.

Of the devices that were judged lately at most half may be suspicious (`verdicts`): where more are, nothing is held
until that is over (docs/decisions/quarantine.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from broker_coordinator.aggregation.robust.stack import Change, Matrix, Stack, Vector
from broker_coordinator.aggregation.verdicts import Verdicts
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.quarantine_plan import FEWEST_OTHERS, QuarantinePlan

DEVICES_REMEMBERED: Final = 32
"""Those of which versions held an update last."""
TO_DEVIATION: Final = 1.4826
LEAST_OF_NORM: Final = 0.25
"""Smallest deviation of norms, times their median: devices that are alike to a hair are no reason to suspect one that
is a little longer."""
LEAST_OF_COSINE: Final = 0.05
"""Smallest deviation of cosines, likewise."""


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """An update: its norm as it came, and its delta as it counts."""

    norm: float
    delta: SparseUpdate


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """An update that is judged, at its place in the journal; `suspicion` says what is known against it already."""

    device: str
    position: int
    sent: Sent
    suspicion: str = ""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Why an update is suspicious, in words; whether it `is_held`."""

    reason: str
    is_held: bool


@dataclass(slots=True)
class Quarantine:
    """`last` are the last updates of devices that versions hold, who sent last is last; `verdicts` are on updates that
    versions hold, and on those that are suspicious, whatever becomes of them.
    """

    last: dict[str, Sent] = field(default_factory=dict)
    verdicts: Verdicts = field(default_factory=Verdicts)

    @property
    def is_overrun(self) -> bool:
        """Whether so many devices are suspicious that nothing is held."""
        return self.verdicts.are_overrun

    def note(self, update: Judged) -> None:
        """A version holds an update."""
        self.last.pop(update.device, None)
        if len(self.last) == DEVICES_REMEMBERED:
            del self.last[next(iter(self.last))]
        self.last[update.device] = update.sent
        self.verdicts.note(update.device, update.position, suspicious=bool(update.suspicion))

    def suspicions(self, updates: Sequence[Judged], size: int, plan: QuarantinePlan) -> Mapping[int, Suspicion]:
        """By their place, those that are suspicious and were not known to be. `size` is the length of the weights."""
        peers = _Peers.of(self.last, size)
        verdicts = self.verdicts.copy()
        found = {}
        for place, update in enumerate(updates):
            reason = update.suspicion or peers.reason_against(update, plan.threshold)
            verdicts.note(update.device, update.position, suspicious=bool(reason))
            if reason and not update.suspicion:
                found[place] = Suspicion(reason, not verdicts.are_overrun)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Peers:
    """What an update is compared with: names, norms as they came, float64 [N], directions, their sum and products."""

    devices: Sequence[str]
    norms: Vector
    directions: Stack
    total: Vector
    products: Matrix

    @classmethod
    def of(cls, last: Mapping[str, Sent], size: int) -> "_Peers":
        """Those of some devices, without updates that move nothing."""
        moving = {device: sent for device, sent in last.items() if sent.norm > 0}
        directions = Stack([_direction(each.delta) for each in moving.values()], size)
        norms = np.array([each.norm for each in moving.values()])
        return cls(list(moving), norms, directions, directions.combined(np.ones(len(moving))), directions.products())

    def reason_against(self, update: Judged, threshold: float) -> str:
        """Why it is suspicious; empty where it is not, or other devices are too few to say."""
        others = np.array([device != update.device for device in self.devices], bool)
        count = int(others.sum())
        if count < FEWEST_OTHERS:
            return ""
        norms = self.norms[others]
        usual = float(np.median(norms))
        if (longer := _deviations(update.sent.norm, norms, LEAST_OF_NORM * usual)) > threshold:
            return (
                f"its norm is {update.sent.norm:.3g}, {longer:.1f} deviations above the median {usual:.3g} of {count}"
                " other devices"
            )
        cosine = self._cosine(update)
        if cosine >= 0:
            return ""
        cosines = self._cosines(others)
        if (opposite := -_deviations(cosine, cosines, LEAST_OF_COSINE)) > threshold:
            return (
                f"its cosine with the mean direction of {count} other devices is {cosine:.2f}, {opposite:.1f}"
                f" deviations below the median {float(np.median(cosines)):.2f} of theirs"
            )
        return ""

    def _cosine(self, update: Judged) -> float:
        """c of an update."""
        total = self.total
        if update.device in self.devices:
            own = self.directions.changes[self.devices.index(update.device)]
            total = total.copy()
            total[own.indices] -= own.values
        return float(Stack([_direction(update.sent.delta)], total.size).cosines_to(total)[0])

    def _cosines(self, others: NDArray[np.bool_]) -> Vector:
        """c of each of `others`, with the sum of those that it is none of: float64 [N]; 0 where either is 0."""
        products = self.products[np.ix_(others, others)]
        own, sums = np.diagonal(products), products.sum(axis=1)
        squares = np.maximum(products.sum() - 2 * sums + own, 0) * own  # |sum of the others|^2 |d_j|^2
        along = sums - own
        return np.asarray(np.divide(along, np.sqrt(squares), out=np.zeros_like(along), where=squares > 0))


def _direction(delta: SparseUpdate) -> Change:
    """Of length 1; without length where it is all zero."""
    values = delta.values.astype(np.float64)
    length = float(np.sqrt(np.sum(np.square(values))))
    return Change(delta.indices, values / length if length else values)


def _deviations(value: float, others: Vector, least: float) -> float:
    """z; 0 where nothing deviates from anything, as no scale is known then."""
    median = float(np.median(others))
    deviation = max(TO_DEVIATION * float(np.median(np.abs(others - median))), least)
    return (value - median) / deviation if deviation else 0.0
