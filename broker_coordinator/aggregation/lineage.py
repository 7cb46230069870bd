"""What a version goes back to: which versions and whose updates are in it, after rollbacks and departures. Pure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

NOBODY: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Departure:
    """A device left a task when `version` was the newest: later ones remember nothing of what it had sent by then.

    With `replayed_from`, the version after `version` was computed anew from that one on, without the device's updates.
    """

    device: str
    version: int
    replayed_from: int | None = None


@dataclass(frozen=True, slots=True)
class Lineage:
    """`spans` of versions, first and last, the newest first: those whose updates are in a version.

    Of a device in `left`, updates up to that version are remembered no more.
    """

    spans: Sequence[tuple[int, int]]
    left: Mapping[str, int]

    def through(self, version: int) -> "Lineage":
        """The part of it that is not newer than a version."""
        return Lineage([(first, min(last, version)) for first, last in self.spans if first <= version], self.left)


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

    def lineage(self, version: int, without: Mapping[str, int] = NOBODY) -> Lineage:
        """That of a version as the next one is made from it, where those of `without` had left too."""
        left = dict(without)
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

    def replay_after(self, version: int) -> tuple[int, Mapping[str, int]] | None:
        """Where the version after this one was replayed from, and without whose updates; None where it was not."""
        starts = [each.replayed_from for each in self.departures if each.version == version]
        known = [start for start in starts if start is not None]
        return (min(known), self.forgotten(version)) if known else None

    def forgotten(self, version: int) -> Mapping[str, int]:
        """The devices that were left out of a replay by then, each with the last version that is without it."""
        replayed = (each for each in self.departures if each.version <= version and each.replayed_from is not None)
        return {each.device: each.version for each in sorted(replayed, key=lambda each: each.version)}

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
