"""What each device of a task declared last: the measure of what another one may. Pure."""

import math
from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from broker_coordinator.aggregation.bounds import several_of, usual_norm

MAX_PEERS = 128
"""Devices that are remembered, those that sent last: enough for a median, and few enough to copy at each batch."""

FEWEST_FOR_NORMS = 2
"""Of two devices, nobody can say which one's norm is the unusual one."""

Number = TypeVar("Number", int, float)


class Declared(msgspec.Struct, frozen=True, gc=False):
    """The last update of a device: the samples that it declared, and its delta's Euclidean norm."""

    samples: int
    norm: float


@dataclass(slots=True)
class Peers:
    """The last update of each of the last `MAX_PEERS` devices, the newest one last; `samples` and `norms` are sorted.

    A device counts once however much it sends, and never in its own measure: so one device can't move what it is
    measured by.
    """

    last: dict[str, Declared] = field(default_factory=dict)
    samples: list[int] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)

    def copy(self) -> "Peers":
        """One that may be changed by itself."""
        return Peers(self.last.copy(), self.samples.copy(), self.norms.copy())

    def note(self, device: str, declared: Declared) -> None:
        """Note one more update."""
        gone = self.last.pop(device, None)
        if gone is None and len(self.last) == MAX_PEERS:
            gone = self.last.pop(next(iter(self.last)))
        if gone is not None:
            del self.samples[bisect_left(self.samples, gone.samples)]
            del self.norms[bisect_left(self.norms, gone.norm)]
        self.last[device] = declared
        insort(self.samples, declared.samples)
        insort(self.norms, declared.norm)

    def usual(self, device: str, norm_quantile: float | None = None) -> tuple[int | None, float | None]:
        """The median of the samples that the others declared, and the usual one of their norms (`aggregation.bounds`),
        or a quantile of these; None where they are too few to say.
        """
        own = self.last.get(device)
        others = len(self.last) - (own is not None)
        if not others:
            return None, None
        samples = _of_others(self.samples, None if own is None else own.samples, _place(others, 0.5))
        if others < FEWEST_FOR_NORMS:
            return samples, None
        own_norm = None if own is None else own.norm
        of_quantile = _of_others(self.norms, own_norm, _place(others, norm_quantile or 0.5))
        if norm_quantile is not None:
            return samples, of_quantile
        return samples, usual_norm(of_quantile, _of_others(self.norms, own_norm, others - several_of(others)))


def _of_others(ascending: Sequence[Number], own: Number | None, place: int) -> Number:
    """The value at a place among the others."""
    return ascending[place if own is None else place + (ascending[place] >= own)]


def _place(others: int, quantile: float) -> int:
    """Of two in the middle the larger one: among the others of an honest device, one may be too small on purpose."""
    return math.ceil(quantile * (others - 1))
