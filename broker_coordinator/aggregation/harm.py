"""Whether devices find the model worse than it was, and so in which versions suspicious updates are tempered. Pure.

    r(u) = (l - b) / max(f - b, f / 10)     of an update u whose device is known to have sent others
    r(u) = 1 where l > n, else 0            of any other
    harmed where more than half of the last r of devices are above LOST

l is the loss that a device declares with an update: that of the version with which it began, on its own samples. b is
the smallest that it has declared of late, f the first of those, or n where that is more; n is the loss that three
quarters of those were below that came first or began with the task's own weights. So r is the share of what a device
had gained that it has lost again, and devices are compared with themselves alone: those of an honest minority that sees
what others don't are suspicious too (`quarantine`), and cost the others little; those that lie together ruin them. What
was trained from the task's own weights tells nothing, and nothing is told where n is not above 0, as such losses have
no scale. Of one device no more than OF_ONE of these r count, however often it sends.

Once devices are harmed, what is suspicious is tempered in the next TRIAL versions. Behind them r tells whether that has
helped: is it above LOST for more than MOST_HARMED of them still, it was not what harms, or those who are tempered are
many and harmed by it. Then all count for REST times as long, whatever r is. Else it is tempered in SPAN versions more,
and counts as any other behind them. Where devices are harmed again within as many, it is tempered for twice as long.
docs/decisions/temper-on-harm.md
"""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Final, NamedTuple

MOST_SHARES: Final = 32
FEWEST_SHARES: Final = 20
"""Of r: fewer say nothing."""
OF_ONE: Final = 4
LOST: Final = 0.0625
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
"""Updates that came first; more than the fewest where they began with the task's own weights."""
FEWEST_OF_FIRST: Final = 16
"""Of them, that devices which are new are compared with."""
TRIAL: Final = 20
SPAN: Final = 80
LONGEST: Final = 1280
"""Versions."""
MOST_HARMED: Final = 1 / 3
REST: Final = 4


class Declared(NamedTuple):
    """The loss that a device declared for the version that it began with."""

    device: str
    loss: float
    base_version: int


class Share(NamedTuple):
    """r of an update."""

    device: str
    lost: float


class Tempering(NamedTuple):
    """What is suspicious is tempered in the versions behind `since`, up to `until`. Behind that, all count whatever
    devices declare up to `rests_until`; None as long as it isn't over.
    """

    since: int
    until: int
    rests_until: int | None = None

    def is_on(self, newest: int) -> bool:
        """Whether suspicious updates are tempered in the version behind the `newest`."""
        return newest < self.until

    def again(self, version: int) -> "Tempering":
        """From a version on, behind which devices are harmed once more."""
        lasted = self.until - self.since
        is_recent = lasted > TRIAL and version <= self.until + lasted
        return Tempering(version, version + (min(2 * lasted, LONGEST) if is_recent else TRIAL))

    def ended(self, *, helped: bool) -> "Tempering":
        """As it goes on once its last version is made."""
        lasted = self.until - self.since
        if not helped:
            return self._replace(rests_until=self.until + REST * lasted)
        return self._replace(until=self.until + SPAN) if lasted == TRIAL else self._replace(rests_until=self.until)


@dataclass(slots=True)
class Harm:
    """What devices have declared with the updates of a task's versions, whose own one has the number `first_version`.

    `first` are losses of those that came first, to which more are added unless `first_are_known`. `shares` are the last
    r, and `of_devices` what each is known to have declared, by version, oldest first; `looked_at` are these versions
    and the devices in them, with so many `updates` in all.
    """

    first_version: int = 0
    first: list[float] = field(default_factory=list)
    first_are_known: bool = False
    shares: Sequence[Share] = ()
    of_devices: dict[str, deque[tuple[int, float]]] = field(default_factory=dict)
    looked_at: deque[tuple[int, tuple[str, ...]]] = field(default_factory=deque)
    updates: int = 0

    def tempering_after(self, version: int, declared: Iterable[Declared], before: Tempering | None) -> Tempering | None:
        """Once a version is made of updates that declare these, where `before` was until then."""
        if before is not None and version < (before.rests_until or before.until):
            return before
        shares = _last([*self.shares, *self._shares(declared)])
        harmed = sum(each.lost > LOST for each in shares)
        if before is not None and before.rests_until is None:
            return before.ended(helped=harmed <= MOST_HARMED * len(shares))
        if len(shares) < FEWEST_SHARES or 2 * harmed <= len(shares):
            return before
        return Tempering(version, version + TRIAL) if before is None else before.again(version)

    def note(self, version: int, declared: Iterable[Declared]) -> None:
        """A version is made of updates that declare these."""
        if not (these := list(declared)):
            return
        if version <= self.first_version + FIRST_VERSIONS and not self.first_are_known:
            for each in these:
                self._note_first(each)
        self.shares = _last([*self.shares, *self._shares(these)])
        for each in these:
            of_device = self.of_devices.setdefault(each.device, deque(maxlen=OF_A_DEVICE))
            of_device.append((version, each.loss))
        self.looked_at.append((version, tuple(each.device for each in these)))
        self.updates += len(these)
        while len(self.looked_at) > VERSIONS_LOOKED_AT or (
            self.updates > UPDATES_LOOKED_AT and len(self.looked_at) > 1
        ):
            self._forget_oldest()

    def _note_first(self, declared: Declared) -> None:
        known = len(self.first)
        if known < FEWEST_FIRST or (known < MOST_FIRST and declared.base_version == self.first_version):
            self.first.append(declared.loss)

    def _forget_oldest(self) -> None:
        version, devices = self.looked_at.popleft()
        self.updates -= len(devices)
        for device in set(devices):
            of_device = self.of_devices[device]
            while of_device and of_device[0][0] <= version:
                of_device.popleft()
            if not of_device:
                del self.of_devices[device]

    def _shares(self, declared: Iterable[Declared]) -> list[Share]:
        if len(self.first) < FEWEST_FIRST:
            return []
        usual = quantiles(self.first, n=4, method="inclusive")[-1]
        if usual <= 0:
            return []
        compares_new = len(self.first) >= FEWEST_OF_FIRST
        return [
            Share(each.device, self._lost(each, usual))
            for each in declared
            if each.base_version != self.first_version and (compares_new or each.device in self.of_devices)
        ]

    def _lost(self, declared: Declared, usual: float) -> float:
        of_device = self.of_devices.get(declared.device)
        if of_device is None:
            return float(declared.loss > usual)
        first = max(of_device[0][1], usual)
        least = min(loss for _, loss in of_device)
        return (declared.loss - least) / max(first - least, LEAST_GAIN * first)


def _last(shares: Sequence[Share]) -> tuple[Share, ...]:
    """Those that count: the last ones, and of these no more of one device than may."""
    found, of_devices = list[Share](), Counter[str]()
    for each in reversed(shares):
        of_devices[each.device] += 1
        if of_devices[each.device] <= OF_ONE:
            found.append(each)
    return tuple(reversed(found[:MOST_SHARES]))
