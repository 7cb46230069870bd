"""Whether devices find the model worse than it was, and so in which versions suspicious updates are tempered. Pure.

    r(u) = (l - b) / max(f - b, f / 10)     of an update u whose device is known to have sent others
    r(u) = 1 where l > n, else 0            of any other
    harmed where the median of the last UPDATES of these is above LOST

l is the loss that a device declares with an update: that of the version with which it began, on its own samples. b is
the smallest that it has declared of late, f the first of those, or n where that is more; n is the loss that three
quarters of those that began with the task's own weights were below. So r is the share of what a device had gained that
it has lost again, and devices are compared with themselves alone: those of an honest minority that sees what others
don't are suspicious too (`quarantine`), and cost the others little; those that lie together ruin them. What was trained
from the task's own weights tells nothing, and nothing is told where n is not above 0, as such losses have no scale.

Once devices are harmed, what is suspicious is tempered in the next SPAN versions, and counts as any other behind them.
Where they are harmed again within as many more, it is tempered for twice as long. docs/decisions/temper-on-harm.md
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median_low, quantiles
from typing import Final, NamedTuple

UPDATES: Final = 32
LOST: Final = 0.125
LEAST_GAIN: Final = 0.1
"""Of the first loss: a device that has gained less is measured by this."""
VERSIONS_LOOKED_AT: Final = 256
UPDATES_LOOKED_AT: Final = 4096
"""Of so many versions, or as many as hold so many updates, something is known of devices."""
OF_A_DEVICE: Final = 64
"""Updates that are known of one device."""
FIRST_VERSIONS: Final = 16
FEWEST_FIRST: Final = 5
MOST_FIRST: Final = 64
"""Updates of the first versions that began with the task's own weights."""
SPAN: Final = 80
LONGEST_SPAN: Final = 1280


class Declared(NamedTuple):
    """The loss that a device declared for the version that it began with."""

    device: str
    loss: float
    base_version: int


class Tempering(NamedTuple):
    """What is suspicious is tempered in the versions behind `since`, up to `until`."""

    since: int
    until: int

    def again(self, version: int) -> "Tempering":
        """From a version on, behind which devices are harmed once more."""
        lasted = self.until - self.since
        is_recent = version <= self.until + lasted
        return Tempering(version, version + (min(2 * lasted, LONGEST_SPAN) if is_recent else SPAN))


@dataclass(slots=True)
class Harm:
    """What devices have declared with the updates of a task's versions, whose own one has the number `first_version`.

    `first` are losses of those that began with it, to which those of the first versions are added unless
    `first_are_known`. `shares` are the last r, and `of_devices` what each is known to have declared, by version, oldest
    first; `looked_at` are these versions and the devices in them, with so many `updates` in all.
    """

    first_version: int = 0
    first: list[float] = field(default_factory=list)
    first_are_known: bool = False
    shares: deque[float] = field(default_factory=lambda: deque(maxlen=UPDATES))
    of_devices: dict[str, deque[tuple[int, float]]] = field(default_factory=dict)
    looked_at: deque[tuple[int, tuple[str, ...]]] = field(default_factory=deque)
    updates: int = 0

    def tempering_after(self, version: int, declared: Iterable[Declared], before: Tempering | None) -> Tempering | None:
        """Once a version is made of updates that declare these, where `before` was until then."""
        if before is not None and version < before.until:
            return before
        shares = [*self.shares, *self._shares(declared)][-UPDATES:]
        if len(shares) < UPDATES or median_low(shares) <= LOST:
            return before
        return Tempering(version, version + SPAN) if before is None else before.again(version)

    def note(self, version: int, declared: Iterable[Declared]) -> None:
        """A version is made of updates that declare these."""
        if not (these := list(declared)):
            return
        if version <= self.first_version + FIRST_VERSIONS and not self.first_are_known:
            began = [each.loss for each in these if each.base_version == self.first_version]
            self.first.extend(began[: MOST_FIRST - len(self.first)])
        self.shares.extend(self._shares(these))
        for each in these:
            of_device = self.of_devices.setdefault(each.device, deque(maxlen=OF_A_DEVICE))
            of_device.append((version, each.loss))
        self.looked_at.append((version, tuple(each.device for each in these)))
        self.updates += len(these)
        while len(self.looked_at) > VERSIONS_LOOKED_AT or (
            self.updates > UPDATES_LOOKED_AT and len(self.looked_at) > 1
        ):
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        version, devices = self.looked_at.popleft()
        self.updates -= len(devices)
        for device in set(devices):
            of_device = self.of_devices[device]
            while of_device and of_device[0][0] <= version:
                of_device.popleft()
            if not of_device:
                del self.of_devices[device]

    def _shares(self, declared: Iterable[Declared]) -> list[float]:
        if len(self.first) < FEWEST_FIRST:
            return []
        usual = quantiles(self.first, n=4, method="inclusive")[-1]
        if usual <= 0:
            return []
        return [self._share(each, usual) for each in declared if each.base_version != self.first_version]

    def _share(self, declared: Declared, usual: float) -> float:
        of_device = self.of_devices.get(declared.device)
        if of_device is None:
            return float(declared.loss > usual)
        first = max(of_device[0][1], usual)
        least = min(loss for _, loss in of_device)
        return (declared.loss - least) / max(first - least, LEAST_GAIN * first)
