"""Devices of which at least one has spoiled a sum, and whom the next sets leave out until it is found. Pure.

Nobody sees behind masks who has spoiled a sum: a device whose values don't have the masks of its seeds, or whose boxes
have other seeds for one helper than for another. So it is group testing: of those that may have, half, drawn at random,
are left out of the next set. Where that has a sum, all of its members are cleared, and the others are still suspects.
"""

from collections.abc import Callable, Collection, Sequence, Set

Draw = Callable[[Sequence[str], int], Sequence[str]]
"""So many of these, drawn evenly: `random.SystemRandom().sample`."""


class Suspects:
    """Of one task. A fleet in which all are suspects again and again has a mask helper that answers wrongly."""

    __slots__ = ("_cleared", "_names")

    def __init__(self) -> None:
        self._cleared: set[str] = set()
        self._names: set[str] = set()

    @property
    def names(self) -> Set[str]:
        """The suspects."""
        return self._names

    def spoiled(self, devices: Set[str]) -> None:
        """A set of these devices had no sum."""
        if not devices - self._cleared:
            self._cleared -= devices
        self._names |= devices - self._cleared

    def summed(self, devices: Set[str]) -> None:
        """A set of these devices had one."""
        if self._names:
            self._cleared |= devices
            self._names -= devices

    def left_out(self, candidates: Collection[str], fewest: int, draw: Draw) -> Set[str]:
        """Whom the next set, of at least so many candidates, does without: half of the suspects, at least one."""
        there = sorted(self._names.intersection(candidates))
        spared = min((len(there) + 1) // 2, len(candidates) - fewest)
        return frozenset(draw(there, spared)) if spared > 0 else frozenset()
