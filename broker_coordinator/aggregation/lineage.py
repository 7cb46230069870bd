"""What a version goes back to: which versions and whose updates are in it, after rollbacks and departures. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from fleet_protocol.limits import MAX_SEQUENCE

Without = Mapping[str, Sequence[tuple[int, int]]]
"""By device, spans of versions, first and last: no update of it that one of them holds is taken."""

NOBODY: Final[Without] = MappingProxyType({})


def leaves_out(without: Without, device: str, version: int) -> bool:
    """Whether an update of a device that a version holds is not taken."""
    return any(first <= version <= last for first, last in without.get(device, ()))


@dataclass(frozen=True, slots=True)
class Departure:
    """A device left a task when `version` was the newest: later ones remember nothing of what it had sent by then.

    With `replayed_from`, the version after `version` was computed anew from that one on, without the device's updates
    that `since` or a later version holds; without `since`, that any does.
    """

    device: str
    version: int
    replayed_from: int | None = None
    since: int | None = None

    @property
    def span(self) -> tuple[int, int]:
        """The versions whose updates of the device a replay leaves out."""
        return self.since or 0, self.version


@dataclass(frozen=True, slots=True)
class Lineage:
    """`spans` of versions, first and last, the newest first: those whose updates are in a version.

    Of a device in `left`, updates up to that version are remembered no more.
    """

    spans: Sequence[tuple[int, int]]
    left: Mapping[str, int]

    def through(self, version: int) -> "Lineage":
        """The part of it that is not newer than a version."""
        return Lineage(overlap(self.spans, (0, version)), self.left)

    @property
    def since_return(self) -> "Lineage":
        """The part of it behind the newest rollback; all where there was none."""
        return Lineage(self.spans[:1], self.left)


def overlap(spans: Sequence[tuple[int, int]], span: tuple[int, int]) -> list[tuple[int, int]]:
    """The parts of `spans` within another one."""
    parts = ((max(first, span[0]), min(last, span[1])) for first, last in spans)
    return [(first, last) for first, last in parts if first <= last]


@dataclass(frozen=True, slots=True)
class Part:
    """Versions `first` to `last` whose updates a version is made of, but for those that a replay left out."""

    first: int
    last: int
    without: Without

    def spans_of(self, device: str, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Where this part and `spans` have updates of a device in common."""
        found = overlap(spans, (self.first, self.last))
        for first, last in self.without.get(device, ()):
            found = overlap(found, (0, first - 1)) + overlap(found, (last + 1, MAX_SEQUENCE))
        return found


@dataclass(frozen=True, slots=True)
class History:
    """What was done to a task. `rollbacks`: the versions that they made, each with the one that it restored; `steps`:
    those versions with the factor that they set (`ServerState.step`).

    `first` is the version that is the bundle's own; `given` are those that no updates made.
    """

    rollbacks: Mapping[int, int]
    departures: Sequence[Departure] = ()
    first: int = 0
    steps: Mapping[int, float] = field(default_factory=dict)
    given: Collection[int] = frozenset()

    def lineage(self, version: int, without: Without = NOBODY) -> Lineage:
        """That of a version as the next one is made from it, where those of `without` had left too: each before the
        first of its spans.
        """
        begun = {device: [last for first, last in spans if first <= version + 1] for device, spans in without.items()}
        left = {device: max(lasts) for device, lasts in begun.items() if lasts}
        for departure in self.departures:
            if departure.version <= version:
                left[departure.device] = max(departure.version, left.get(departure.device, 0))
        return Lineage(self.spans(version), left)

    def spans(self, version: int) -> list[tuple[int, int]]:
        """The versions that one goes back to. A rollback's own version is among them; it holds no update."""
        found = []
        last = version
        for made in sorted(self.rollbacks, reverse=True):
            if self.first < made <= last:
                found.append((made, last))
                last = self.rollbacks[made]
        return [*found, (self.first, last)]

    def departed_at(self, version: int) -> bool:
        """Whether a device left when this version was the newest."""
        return any(departure.version == version for departure in self.departures)

    def replay_after(self, version: int) -> tuple[int, Without] | None:
        """Where the version after this one was replayed from, and without whose updates; None where it was not."""
        starts = [each.replayed_from for each in self.departures if each.version == version]
        known = [start for start in starts if start is not None]
        return (min(known), self.forgotten(version)) if known else None

    def forgotten(self, version: int) -> Without:
        """The devices that were left out of replays by then."""
        found: dict[str, list[tuple[int, int]]] = {}
        for each in self.departures:
            if each.version <= version and each.replayed_from is not None:
                found.setdefault(each.device, []).append(each.span)
        return found

    def parts(self, version: int) -> list["Part"]:
        """What a version is made of, from the newest on.

        Outside a replay, the way back leads from a rollback to what it restored, and from a replay's version to those
        that it computed anew and on to the one that it began with. A replay passes over those made before it.
        """
        found = []
        last, floor, without = version, self.first, NOBODY
        while last > self.first:
            others = self.rollbacks.keys() if without else self.rollbacks.keys() | self._replays()
            made = max((each for each in others if floor < each <= last), default=floor)
            found.append(Part(made + 1, last, without))
            if made == floor:
                last, floor, without = floor, self.first, NOBODY
            elif made in self.rollbacks:
                last = self.rollbacks[made]
                floor, without = (floor, without) if last > floor else (self.first, NOBODY)
            elif replay := self.replay_after(made - 1):
                last, (floor, without) = made - 1, replay
        return found

    def still_held(self, version: int, held: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        """Of devices that were forgotten by then or later, by name: which of the versions that a version is made of
        hold updates that are to be forgotten.

        `held` are, by device and in ascending order, the versions that hold an update of it.
        """
        forgotten, parts = self.forgotten(MAX_SEQUENCE), self.parts(version)
        found = {}
        for device, numbers in held.items():
            spans = [span for part in parts for span in part.spans_of(device, forgotten.get(device, ()))]
            inside = [numbers[bisect_left(numbers, first) : bisect_right(numbers, last)] for first, last in spans]
            if any(inside):
                found[device] = sorted({number for some in inside for number in some})
        return found

    def _replays(self) -> set[int]:
        return {each.version + 1 for each in self.departures if each.replayed_from is not None}

    def numbers_to_average(self, version: int) -> list[int]:
        """The versions that the mean for use may be of, the newest first.

        Not those that were rolled back from, nor those before a device was forgotten or a version was given, nor the
        bundle's own, which is untrained.
        """
        oldest = max(
            [
                self.first + 1,
                *(each.version + 1 for each in self.departures if self._was_replayed(each, version)),
                *(each for each in self.given if each <= version),
            ]
        )
        restored = set(self.rollbacks.values())
        numbers: list[int] = []
        for position, (first, last) in enumerate(self.spans(version)):
            skip_restored = position > 0 and last in restored
            numbers += range(last - skip_restored, max(first, oldest) - 1, -1)
        return numbers

    @staticmethod
    def _was_replayed(departure: Departure, version: int) -> bool:
        return departure.replayed_from is not None and departure.version < version
