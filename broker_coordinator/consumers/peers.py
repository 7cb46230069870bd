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
    """The last update of a device: the samples that it declared, as its noise lets them count, its delta's Euclidean
    norm, and the cut of the task's `split` that it was trained with, empty without one.
    """

    samples: int
    norm: float
    cut: str = ""


@dataclass(slots=True)
class Peers:
    """The last update of each of the last `MAX_PEERS` devices, the newest one last; `samples` and `norms` are sorted.

    A device counts once however much it sends, and never in its own measure: so one device can't move what it is
    measured by. Deltas of different blocks have different norms: `norms_of_cuts` has those of each cut.
    """

    last: dict[str, Declared] = field(default_factory=dict)
    samples: list[int] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    norms_of_cuts: dict[str, list[float]] = field(default_factory=dict)

    def copy(self) -> "Peers":
        """One that may be changed by itself."""
        norms_of_cuts = {cut: norms.copy() for cut, norms in self.norms_of_cuts.items()}
        return Peers(self.last.copy(), self.samples.copy(), self.norms.copy(), norms_of_cuts)

    def note(self, device: str, declared: Declared) -> None:
        """Note one more update."""
        gone = self.last.pop(device, None)
        if gone is None and len(self.last) == MAX_PEERS:
            gone = self.last.pop(next(iter(self.last)))
        if gone is not None:
            del self.samples[bisect_left(self.samples, gone.samples)]
            for norms in (self.norms, self.norms_of_cuts[gone.cut]):
                del norms[bisect_left(norms, gone.norm)]
        self.last[device] = declared
        insort(self.samples, declared.samples)
        for norms in (self.norms, self.norms_of_cuts.setdefault(declared.cut, [])):
            insort(norms, declared.norm)

    def all_samples(self) -> int:
        """Those that all devices declared, together."""
        return sum(self.samples)

    def usual(self, device: str, norm_quantile: float | None = None, cut: str = "") -> tuple[int | None, float | None]:
        """The median of the samples that the others declared, and the usual one of their norms (`aggregation.bounds`),
        or a quantile of these; None where they are too few to say. Where enough others have the same `cut`, the usual
        norm is at most theirs: some blocks change less than all.
        """
        own = self.last.get(device)
        others = len(self.last) - (own is not None)
        if not others:
            return None, None
        samples = _of_others(self.samples, None if own is None else own.samples, _place(others, 0.5))
        own_norm = None if own is None else own.norm
        in_all = _usual_norm(self.norms, own_norm, norm_quantile)
        alike = self.norms_of_cuts.get(cut, [])
        in_cut = _usual_norm(alike, own_norm if own is not None and own.cut == cut else None, norm_quantile)
        known = [usual for usual in (in_all, in_cut) if usual is not None]
        return samples, min(known, default=None)


def _others(ascending: Sequence[Number], own: Number | None) -> int:
    return len(ascending) - (own is not None)


def _usual_norm(norms: Sequence[float], own: float | None, quantile: float | None) -> float | None:
    """The usual one of the other norms, or a quantile of them; None where they are too few to say."""
    others = _others(norms, own)
    if others < FEWEST_FOR_NORMS:
        return None
    of_quantile = _of_others(norms, own, _place(others, quantile or 0.5))
    if quantile is not None:
        return of_quantile
    longer = several_of(others + 1) - 1  # with the device itself, it is several
    return usual_norm(of_quantile, _of_others(norms, own, others - longer))


def _of_others(ascending: Sequence[Number], own: Number | None, place: int) -> Number:
    """The value at a place among the others."""
    return ascending[place if own is None else place + (ascending[place] >= own)]


def _place(others: int, quantile: float) -> int:
    """Of two in the middle the larger one: among the others of an honest device, one may be too small on purpose."""
    return math.ceil(quantile * (others - 1))
