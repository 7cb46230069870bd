"""One verdict of each device that was judged lately: whether its last update was suspicious. Pure.

Lately is since the first update of the `VERSIONS_LOOKED_AT`-th last version. Versions are the clock, as what is held
makes none: however often hostile devices send, honest ones are still among those that count. Of these devices at most
half may be suspicious: where more are, what is usual has changed, or the honest are the few. A device has one verdict,
however often it sends: so one alone is never more than half of those that judge it. And whoever was suspicious once
stays among the suspected as long: nobody gets rid of that by what is sent behind it.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

VERSIONS_LOOKED_AT: Final = 40
"""Versions with updates. With a buffer that follows the fleet, all but the rarest devices are in so many."""
MOST_JUDGED: Final = 4096
"""Devices, those of which something came last, of which at most half may be suspicious."""


NEVER: Final = -1
"""Before any position."""


class Verdict(NamedTuple):
    """On the last update of a device, at this position of the journal; `suspected_at` is that of the last one that was
    suspicious.
    """

    position: int
    suspicious: bool
    suspected_at: int = NEVER


@dataclass(slots=True)
class Verdicts:
    """By device, in the order of their positions in the journal: whatever order they are noted in, they are the same,
    and a restart finds them again. `first_positions` are of the first update of each of the last versions.
    """

    of_devices: dict[str, Verdict] = field(default_factory=dict)
    first_positions: deque[int] = field(default_factory=lambda: deque(maxlen=VERSIONS_LOOKED_AT))

    @classmethod
    def of(cls, found: Iterable[tuple[str, int, bool]], first_positions: Iterable[int] = ()) -> Self:
        """Those on some updates: device, position, and whether it is suspicious; `first_positions`, oldest first."""
        verdicts = cls()
        for device, position, suspicious in found:
            verdicts.note(device, position, suspicious=suspicious)
        for position in first_positions:
            verdicts.version_made(position)
        return verdicts

    @property
    def suspicious(self) -> int:
        """How many devices are."""
        return sum(each.suspicious for each in self.of_devices.values())

    @property
    def suspected(self) -> int:
        """Of how many devices something was, whatever they sent since."""
        oldest = self._oldest
        return sum(each.suspected_at >= oldest for each in self.of_devices.values())

    @property
    def are_overrun(self) -> bool:
        """Whether more than half of the devices are suspicious."""
        return 2 * self.suspicious > len(self.of_devices)

    def copy(self) -> "Verdicts":
        """One that may be changed by itself."""
        return Verdicts(dict(self.of_devices), self.first_positions.copy())

    def note(self, device: str, position: int, *, suspicious: bool) -> None:
        """An update of a device is judged, or is known to have been."""
        if position < self._oldest:
            return
        before = self.of_devices.get(device, Verdict(NEVER, suspicious=False))
        suspected_at = max(before.suspected_at, position if suspicious else NEVER)
        if before.position > position:
            self.of_devices[device] = before._replace(suspected_at=suspected_at)
            return
        self.of_devices.pop(device, None)
        newest = next(reversed(self.of_devices.values()), None)
        self.of_devices[device] = Verdict(position, suspicious, suspected_at)
        if newest is not None and newest.position > position:
            self.of_devices = dict(sorted(self.of_devices.items(), key=lambda each: each[1].position))
        if len(self.of_devices) > MOST_JUDGED:
            del self.of_devices[next(iter(self.of_devices))]

    def version_made(self, first_position: int) -> None:
        """A version is made, whose first update is at this position: what is before those looked at counts no more."""
        self.first_positions.append(first_position)
        for device in [device for device, each in self._before(self._oldest)]:
            del self.of_devices[device]

    @property
    def _oldest(self) -> int:
        """The position from which on updates count."""
        full = len(self.first_positions) == VERSIONS_LOOKED_AT
        return self.first_positions[0] if full else 0

    def _before(self, position: int) -> Iterable[tuple[str, Verdict]]:
        for device, verdict in self.of_devices.items():
            if verdict.position >= position:
                return
            yield device, verdict
