"""Whether a generator's pictures have become alike, which is called mode collapse. Pure.

docs/decisions/narrowed-pictures-are-said.md has how the numbers were chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

NARROW_SHARE: Final = 0.5
"""Of the greatest variety that an earlier version had."""
NEGLIGIBLE: Final = 0.02
"""A greatest variety below this is that of a generator that has not learned to draw yet: nothing is lost."""
MOST_EARLIER: Final = 8
"""Versions that one is compared with."""


@dataclass(frozen=True, slots=True)
class Narrowing:
    """The `variety` of what a version draws for a cluster, and the greatest one of earlier versions, with its number;
    these are those of the version itself where none is earlier.
    """

    cluster: int
    variety: float
    greatest: float
    greatest_in: int

    @property
    def is_narrow(self) -> bool:
        """Whether the pictures of each class have become alike."""
        return self.greatest > NEGLIGIBLE and self.variety < NARROW_SHARE * self.greatest


def narrowing(cluster: int, version: int, found: Mapping[int, float]) -> Narrowing:
    """Of a version whose variety, with those of earlier ones, is in `found` by number."""
    greatest = max(found, key=lambda number: found[number])
    return Narrowing(cluster, found[version], found[greatest], greatest)


def compared_with(kept: Sequence[int], version: int) -> list[int]:
    """Versions to measure: at most so many of the earlier ones that are `kept`, far apart, and the one itself."""
    earlier = sorted(number for number in kept if number < version)
    apart = (len(earlier) - 1) / (MOST_EARLIER - 1)
    places = {round(place * apart) for place in range(MOST_EARLIER)} if earlier else set()
    return [*(earlier[place] for place in sorted(places)), version]
