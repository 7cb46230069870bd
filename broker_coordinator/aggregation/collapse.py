"""Whether training has collapsed, and which version to go back to. Pure. docs/decisions/collapse.md

    level = the median of the losses of the last versions: WINDOW of them, or as many as hold FEWEST_UPDATES
    collapsed where level > LOSS_GROWN * the lowest level, and level > that of the first versions

The loss of a version is the median over its devices of what each has declared, the median of its updates, for the
version that it began with, before it trains: once it has, a device with one class has a small loss whatever the model
is worth. A version of fewer than FEWEST_DEVICES counts together with those before it, as one: a device that makes
versions alone is still one of three. Of two in the middle, the smaller one counts in all medians. So no single device
can bring a collapse about. What its devices find so much worse than it was, and worse than the first versions, has not
met new data: it is lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median_low

WINDOW = 4
"""Versions: one alone says little, as a few devices make it."""

FEWEST_UPDATES = 16
"""In a level: devices differ, and fewer updates than these say more of whose they are than of the model."""

FEWEST_DEVICES = 3
"""In what counts as a version: whatever one of three declares, the median lies between what the others do."""

MOST_VERSIONS = FEWEST_UPDATES
"""In a level: with fewer devices in so many, nothing is said."""

LOSS_GROWN = 3.0
"""On which recorded runs it was chosen, and on which shown, docs/decisions/collapse.md says."""

NEGLIGIBLE_LOSS = 1e-6
"""Smaller ones are 0 within what float32 tells apart next to 1."""

STILL_GOOD = 1.25
"""Levels up to so many times the lowest are good enough to go back to, and the newest of them is taken."""

VERSIONS_LOOKED_AT = 64
"""The newest ones: the lowest level is among them, and so is where to go back to."""

STEP_FACTOR = 0.5
"""On the server's learning rate, each time."""

SMALLEST_STEP = STEP_FACTOR**6
"""Of the task's own learning rate: with less, versions would no longer change."""


@dataclass(frozen=True, slots=True)
class Level:
    """`loss` is that of the versions from `since` on."""

    loss: float
    since: int


DeviceLoss = tuple[str, float]
"""A device, and the loss that it declares in an update."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A version, what its updates `declared`, and the level then; None where too few have. What is too old to be in
    another level is not `declared` any more.
    """

    version: int
    declared: Sequence[DeviceLoss]
    level: Level | None = None


@dataclass(frozen=True, slots=True)
class Collapse:
    """`loss` is far above `lowest`; `good` is the version to go back to."""

    good: int
    loss: float
    lowest: float


@dataclass(frozen=True, slots=True)
class Watch:
    """The last versions of a task since one was restored, oldest first; `first` is the first level there ever was."""

    first: Level | None = None
    seen: Sequence[Seen] = ()

    def after(self, version: int, declared: Sequence[DeviceLoss]) -> "Watch":
        """Once one more version is made, whose updates have declared these; the same where they tell no loss."""
        if not declared:
            return self
        level = _level([*self.seen, Seen(version, declared)])
        recent = [each for each in self.seen if each.version > version - VERSIONS_LOOKED_AT]
        told = len(recent) + 1 - MOST_VERSIONS
        recent = [replace(each, declared=()) if place < told else each for place, each in enumerate(recent)]
        return Watch(self.first or level, (*recent, Seen(version, declared, level)))

    @property
    def oldest(self) -> int | None:
        """The oldest version that it may ever go back to; None where that is none yet. A level begins up to as many
        versions before those that are looked at as it takes to hold FEWEST_UPDATES.
        """
        return min((each.version if each.level is None else each.level.since for each in self.seen), default=None)

    def anew(self) -> "Watch":
        """Once a version is restored. If its devices find that one wanting too, the data have changed, not the model:
        so what comes is compared with nothing that was before.
        """
        return Watch(self.first)

    def collapse(self) -> Collapse | None:
        """That of the newest version, if so. Losses that may be negative have no scale to judge by.

        Devices find a version wanting when they train from it. So where a level was good, its first version was.
        """
        if self.first is None or not self.seen or self.seen[-1].level is None:
            return None
        levels = [each.level for each in self.seen if each.level is not None]
        loss, lowest = levels[-1].loss, min(level.loss for level in levels)
        if lowest < 0 or loss <= max(LOSS_GROWN * max(lowest, NEGLIGIBLE_LOSS), self.first.loss):
            return None
        good = max(level.since for level in levels if level.loss <= STILL_GOOD * max(lowest, NEGLIGIBLE_LOSS))
        return Collapse(good, loss, lowest)


def _level(seen: Sequence[Seen]) -> Level | None:
    updates = 0
    losses: list[float] = []
    together: dict[str, list[float]] = {}
    for versions, each in enumerate(reversed(seen[-MOST_VERSIONS:]), 1):
        updates += len(each.declared)
        for device, loss in each.declared:
            together.setdefault(device, []).append(loss)
        if len(together) >= FEWEST_DEVICES:
            losses.append(median_low(map(median_low, together.values())))
            together = {}
        if versions >= WINDOW and updates >= FEWEST_UPDATES and losses:
            return Level(median_low(losses), each.version)
    return None


def evaluated_collapse(losses: Mapping[int, float]) -> Collapse | None:
    """That of the newest evaluated version, if so, by the losses on held-out samples of versions since one was
    restored. Each evaluation counts for as much as the updates of a version.
    """
    evaluated = sorted(losses)
    watch = Watch()
    for place, version in enumerate(evaluated):
        watch = watch.after(place, [(str(each), losses[version]) for each in range(FEWEST_UPDATES)])
    found = watch.collapse()
    return found and replace(found, good=evaluated[found.good])


def smaller(step: float) -> float:
    """The factor on the server's learning rate after a collapse, by that before it."""
    return max(SMALLEST_STEP, STEP_FACTOR * step)
