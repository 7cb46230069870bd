"""Whether training has collapsed, and which version to go back to. Pure. docs/decisions/collapse.md

    level = the median of the losses of the last WINDOW versions
    collapsed where level > LOSS_GROWN * the lowest level, and level > that of the first versions

The loss of a version is the median of what its devices have declared, so no single device can bring a collapse about.
What its devices find so much worse than it was, and worse than the first versions, has not met new data: it is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

WINDOW = 4
"""Versions: with a buffer of a quarter of the fleet, about one update of each device."""

LOSS_GROWN = 3.0
"""Chosen on recorded runs of digits and Fashion, shown on the others (docs/decisions/collapse.md)."""

STILL_GOOD = 1.25
"""A version up to so many times the lowest level is good enough to go back to, and the newest one is taken."""

VERSIONS_LOOKED_AT = 64
"""The newest ones: the lowest level is among them, and so is where to go back to."""

STEP_FACTOR = 0.5
"""On the server's learning rate, each time."""

SMALLEST_STEP = STEP_FACTOR**6
"""Of the task's own learning rate: with less, versions would no longer change."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the devices of a version have said: its `loss`, and the level then; None for the first few versions."""

    version: int
    loss: float
    level: float | None


@dataclass(frozen=True, slots=True)
class Collapse:
    """`level` is far above `lowest`; `good` is the version to go back to."""

    good: int
    level: float
    lowest: float


@dataclass(frozen=True, slots=True)
class Watch:
    """The last versions of a task that nobody went back from, oldest first; `first` is the first level there was."""

    first: float | None = None
    seen: Sequence[Seen] = ()

    def after(self, version: int, loss: float | None) -> "Watch":
        """Once one more version is made; the same where its devices tell no loss."""
        if loss is None:
            return self
        losses = [*(each.loss for each in self.seen[-WINDOW + 1 :]), loss]
        level = median(losses) if len(losses) == WINDOW else None
        recent = (each for each in self.seen if each.version > version - VERSIONS_LOOKED_AT)
        return Watch(level if self.first is None else self.first, (*recent, Seen(version, loss, level)))

    def back_to(self, version: int) -> "Watch":
        """Once a version is restored."""
        return Watch(self.first, [each for each in self.seen if each.version <= version])

    def collapse(self) -> Collapse | None:
        """That of the newest version, if so. Losses that may be negative have no scale to judge by."""
        levels = [(each.version, each.level) for each in self.seen if each.level is not None]
        if self.first is None or not levels:
            return None
        lowest, (_, level) = min(level for _, level in levels), levels[-1]
        if lowest <= 0 or level <= LOSS_GROWN * lowest or level <= self.first:
            return None
        good = max(version for version, level in levels if level <= STILL_GOOD * lowest)
        return Collapse(good, level, lowest)


def smaller(step: float) -> float:
    """The factor on the server's learning rate after a collapse, by that before it."""
    return max(SMALLEST_STEP, STEP_FACTOR * step)
