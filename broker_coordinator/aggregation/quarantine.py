"""Which updates are suspicious beside what other devices sent last, and how often these count. Pure.

    z(x) = (x - median of x_j) / max(1.4826 * median |x_j - median|, least)     x_j of the other devices
    suspicious where     z(|u|) > threshold     or     c(u) < 0 and z(c(u)) < -threshold
    counts     0 where it is held; where it is tempered
               min(1, L / |u as it counts|) where it is merely long, L the longest that is not suspicious
               min(1, 1 / S) * min(1, median |u_j| / |u as it counts|) where it points away, or is long and
               c(u) < 0 and z(|u|) - z(c(u)) > 1.5 threshold

|u| is an update's norm, as it came. Its c(u) is the cosine with the sum of d_j = u_j / |u_j|, where u_j is the last
update of device j that a version holds; that of d_j itself is with the sum of the others, without its own. z is the
robust z-score of Iglewicz & Hoaglin 1993, who also say the usual threshold; 1.4826 makes the median distance of
Gaussians their deviation. A device is never compared with itself, and counts once however much it sends. Updates of
norm 0 have no direction and no scale: they say nothing of what is usual, and no more do those that were tempered. They
take no place among those that are remembered either: so devices that send nothing else push none out that judges.

S is of how many devices something was suspicious lately, whatever they sent since (`verdicts`): those that point away
count together as much as one device of the usual length. So one alone that sees what nobody else sees is heard, and
many that act together are no more than one. Where more than half of the devices are suspicious, by the last update of
each, all count until that is over (docs/decisions/quarantine.md).

Norms are compared twice, with those of the devices that sent last and with those of many more, which are a number each;
the one that lets a longer update pass counts. So devices that send what is tiny while the others sleep make nobody's
update look long, unless they are more than half of all. Behind a return to an older version, nothing that was
sent before is compared with: all devices begin with one version there, and what they send has other lengths and ways.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Self, TypeVar

import numpy as np

from broker_coordinator.aggregation.robust.stack import Change, Vector
from broker_coordinator.aggregation.verdicts import Verdicts
from fleet_protocol.codec import SparseUpdate
from fleet_protocol.quarantine_plan import FEWEST_OTHERS, QuarantinePlan

ALTOGETHER: Final = 1.5
"""So many thresholds in length and direction together: a long one that points away is then no honest device that
learned much."""
DEVICES_REMEMBERED: Final = 32
"""Those of which versions held an update last."""
NORMS_REMEMBERED: Final = 256
"""Devices of which the norm is remembered, likewise: as many as the largest buffer that follows the fleet."""
VALUES_REMEMBERED: Final = 1 << 24
"""Of all these updates together, 128 MiB: of larger ones, fewer devices are remembered."""
TO_DEVIATION: Final = 1.4826
LEAST_OF_NORM: Final = 0.25
"""Smallest deviation of norms, times their median: devices that are alike to a hair are no reason to suspect one that
is a little longer."""
LEAST_OF_COSINE: Final = 0.05
"""Smallest deviation of cosines, likewise."""
TOGETHER: Final = 1.0
"""As so many devices all suspicious ones count together, where they are tempered."""


Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """An update: its norm as it came, and its delta as it counts."""

    norm: float
    delta: SparseUpdate


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """An update that is judged, at its place in the journal; `suspicion` says what is known against it already, and
    `is_tempered` that it counts less by that: others are not compared with it.
    """

    device: str
    position: int
    sent: Sent
    suspicion: str = ""
    is_tempered: bool = False


@dataclass(frozen=True, slots=True)
class Away:
    """Of an update that points away from others: its negative cosine with them, the usual one, and by how many
    deviations it is below that.
    """

    cosine: float
    usual: float
    deviations: float


@dataclass(frozen=True, slots=True)
class Against:
    """Why an update is suspicious, how long it may be where it is tempered, and whether it points away."""

    reason: str
    longest: float
    points_away: bool


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Why an update is suspicious, in words; and how often it `counts`: never while it is held, once where it is let
    through.
    """

    reason: str
    counts: float

    @property
    def is_held(self) -> bool:
        """Whether it waits for an operator."""
        return not self.counts


@dataclass(slots=True)
class Quarantine:
    """`last` are the last updates of devices that versions hold and others are compared with, who sent last is last;
    `norms` are of those of more devices. `verdicts` are on updates that versions hold, and on suspicious ones,
    whatever becomes of them.
    """

    last: dict[str, Sent] = field(default_factory=dict)
    norms: dict[str, float] = field(default_factory=dict)
    verdicts: Verdicts = field(default_factory=Verdicts)

    @property
    def is_overrun(self) -> bool:
        """Whether so many devices are suspicious that all count."""
        return self.verdicts.are_overrun

    def begin_anew(self) -> None:
        """An older version was restored: updates are compared with those of versions behind it."""
        self.last = {}
        self.norms = {}

    def note(self, update: Judged) -> None:
        """A version holds an update."""
        self.verdicts.note(update.device, update.position, suspicious=bool(update.suspicion))
        if update.is_tempered or not update.sent.norm:
            return
        _remember(self.last, update.device, update.sent, DEVICES_REMEMBERED)
        _remember(self.norms, update.device, update.sent.norm, NORMS_REMEMBERED)
        if DEVICES_REMEMBERED * update.sent.delta.indices.size > VALUES_REMEMBERED:
            self.last = within_memory(self.last)

    def suspicions(self, updates: Sequence[Judged], size: int, plan: QuarantinePlan) -> Mapping[int, Suspicion]:
        """By their place, those that are suspicious and were not known to be. `size` is the length of the weights."""
        peers = Peers.of(self.last, self.norms, size)
        verdicts = self.verdicts.copy()
        found = {}
        for place, update in enumerate(updates):
            against = None if update.suspicion else peers.against(update, plan.threshold)
            verdicts.note(update.device, update.position, suspicious=bool(against or update.suspicion))
            if against:
                found[place] = Suspicion(against.reason, _counts(against, update.sent, verdicts, plan))
        return found


def _counts(against: "Against", sent: Sent, verdicts: Verdicts, plan: QuarantinePlan) -> float:
    """How often a suspicious one does, where the `verdicts` are on it too."""
    if verdicts.are_overrun:
        return 1.0
    if plan.action == "hold":
        return 0.0
    norm = sent.delta.norm()
    share = TOGETHER / verdicts.suspected if against.points_away else 1.0
    return min(1.0, share) * min(1.0, against.longest / norm if norm else 1.0)


def _remember(known: dict[str, Value], device: str, value: Value, most: int) -> None:
    """Let a device be the last of those that are known, of which there are so many at most."""
    known.pop(device, None)
    known[device] = value
    if len(known) > most:
        del known[next(iter(known))]


def within_memory(last: Mapping[str, Sent]) -> dict[str, Sent]:
    """The last updates of devices that are remembered, of those of some; who sent last is last."""
    kept, values = dict[str, Sent](), 0
    for device in reversed(list(last)):
        sent = last[device]
        values += len(sent.delta.indices)
        if len(kept) == DEVICES_REMEMBERED or (kept and values > VALUES_REMEMBERED):
            break
        kept[device] = sent
    return {device: kept[device] for device in reversed(list(kept))}


@dataclass(frozen=True, slots=True)
class Spread:
    """So many values: their median, and their robust deviation."""

    count: int
    median: float
    deviation: float

    @classmethod
    def of(cls, values: Vector, least: float) -> Self:
        """That of `values`; its deviation is never less than `least`."""
        median = float(np.median(values))
        return cls(values.size, median, max(TO_DEVIATION * float(np.median(np.abs(values - median))), least))

    def deviations(self, value: float) -> float:
        """z; 0 where nothing deviates from anything, as no scale is known then."""
        return (value - self.median) / self.deviation if self.deviation else 0.0

    def longest(self, threshold: float) -> float:
        """The largest value of at most so many deviations."""
        return self.median + threshold * self.deviation


@dataclass(frozen=True, slots=True)
class Beside:
    """What one device's update is compared with: how many other devices there are, their norms, those of many more
    (`all_norms`), and its `own` place among the former, None where it has none.
    """

    count: int
    norms: Spread
    all_norms: Spread
    own: int | None

    def norms_at(self, threshold: float) -> Spread:
        """Those that let a longer update pass."""
        return max(self.norms, self.all_norms, key=lambda each: each.longest(threshold))


@dataclass(frozen=True, slots=True)
class Directions:
    """Those of other devices: the squared length of their sum, and the `cosines` of each with that of the others."""

    squared: float
    cosines: Spread

    @classmethod
    def of(cls, others: Sequence[Change], total: Vector) -> Self:
        """`total` is the sum of `others`."""
        squared = float(np.sum(np.square(total)))
        cosines = np.array([_cosine_without(each, total, squared) for each in others])
        return cls(squared, Spread.of(cosines, LEAST_OF_COSINE))


@dataclass(frozen=True, slots=True, eq=False)
class Peers:
    """What updates are compared with: norms as they came, by device, also those of more devices (`all_norms`);
    directions in the same order, and their sum.
    """

    norms: Mapping[str, float]
    all_norms: Mapping[str, float]
    directions: Sequence[Change]
    total: Vector
    known: dict[str | None, Beside] = field(default_factory=dict)
    known_directions: dict[int | None, "Directions"] = field(default_factory=dict)

    @classmethod
    def of(cls, last: Mapping[str, Sent], all_norms: Mapping[str, float], size: int) -> Self:
        """Those of some devices."""
        directions = [_direction(each.delta) for each in last.values()]
        total = np.zeros(size)
        for each in directions:
            total[each.indices] += each.values  # indices are distinct
        return cls({device: each.norm for device, each in last.items()}, all_norms, directions, total)

    def beside(self, device: str) -> Beside:
        """What an update of a device is compared with."""
        own = device if device in self.all_norms or device in self.norms else None
        if (found := self.known.get(own)) is None:
            norms, all_norms = _without(self.norms, own), _without(self.all_norms, own)
            place = list(self.norms).index(device) if device in self.norms else None
            found = self.known[own] = Beside(norms.size, _spread_of(norms), _spread_of(all_norms), place)
        return found

    def against(self, update: Judged, threshold: float) -> "Against | None":
        """What makes it suspicious; None where nothing does, or other devices are too few to say."""
        beside = self.beside(update.device)
        if beside.count < FEWEST_OTHERS:
            return None
        norms = beside.norms_at(threshold)
        longer = norms.deviations(update.sent.norm)
        away = self._away(update, beside)
        if longer > threshold:
            reason = (
                f"its norm is {update.sent.norm:.3g}, {longer:.1f} deviations above the median {norms.median:.3g} of"
                f" {norms.count} other devices"
            )
            points_away = away is not None and longer + away.deviations > ALTOGETHER * threshold
            longest = norms.median if points_away else norms.longest(threshold)
            return Against(reason, longest, points_away)
        if away and away.deviations > threshold:
            reason = (
                f"its cosine with the mean direction of {beside.count} other devices is {away.cosine:.2f},"
                f" {away.deviations:.1f} deviations below the median {away.usual:.2f} of theirs"
            )
            return Against(reason, norms.median, points_away=True)
        return None

    def _away(self, update: Judged, beside: Beside) -> "Away | None":
        """How far it points away from the others; None where it does not."""
        with self._without(beside.own) as total:
            along = _dot(update.sent.delta, total)
            if along >= 0:
                return None
            if (directions := self.known_directions.get(beside.own)) is None:
                others = [each for place, each in enumerate(self.directions) if place != beside.own]
                directions = self.known_directions[beside.own] = Directions.of(others, total)
        cosine = _cosine(along, directions.squared, update.sent.delta.norm())
        return Away(cosine, directions.cosines.median, -directions.cosines.deviations(cosine))

    @contextmanager
    def _without(self, own: int | None) -> Iterator[Vector]:
        """The sum without the direction at one place: as long as this is open, and then as it was, bit for bit."""
        if own is None:
            yield self.total
            return
        change = self.directions[own]
        whole = self.total[change.indices]
        self.total[change.indices] = whole - change.values
        yield self.total
        self.total[change.indices] = whole


def _without(norms: Mapping[str, float], own: str | None) -> Vector:
    """Those of other devices, float64 [N]."""
    return np.array([norm for device, norm in norms.items() if device != own])


def _spread_of(norms: Vector) -> Spread:
    """Nothing deviates from none."""
    return Spread.of(norms, LEAST_OF_NORM * float(np.median(norms))) if norms.size else Spread(0, 0.0, 0.0)


def _direction(delta: SparseUpdate) -> Change:
    """Of length 1; without length where it is all zero."""
    values = delta.values.astype(np.float64)
    length = float(np.sqrt(np.sum(np.square(values))))
    return Change(delta.indices, values / length if length else values)


def _dot(change: Change | SparseUpdate, total: Vector) -> float:
    return float(np.sum(total[change.indices] * change.values))


def _cosine(along: float, squared: float, length: float) -> float:
    """Of what goes so far along a sum of this squared length, and is so long; 0 where either has no length."""
    lengths = float(np.sqrt(max(squared, 0.0))) * length
    return along / lengths if lengths else 0.0


def _cosine_without(direction: Change, total: Vector, squared: float) -> float:
    """c of one of those that are summed, with the sum of the others."""
    along, own = _dot(direction, total), float(np.sum(np.square(direction.values)))
    return _cosine(along - own, squared - 2 * along + own, float(np.sqrt(own)))
