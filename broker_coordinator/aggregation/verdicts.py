"""One verdict of each of the last devices that were judged: whether its last update was suspicious. Pure.

Of these devices at most half may be suspicious: where more are, what is usual has changed, or the honest are the few.
A device has one verdict, however often it sends: so one alone is never more than half of those that judge it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

DEVICES_JUDGED: Final = 32
"""Of which at most half may be suspicious."""


class Verdict(NamedTuple):
    """On the update of a device at this position of the journal."""

    position: int
    suspicious: bool


@dataclass(slots=True)
class Verdicts:
    """By device: those on whose updates came last, by their positions in the journal. So in whatever order they are
    noted, they are the same, and a restart finds them again.
    """

    of_devices: dict[str, Verdict] = field(default_factory=dict)

    @classmethod
    def of(cls, found: Iterable[tuple[str, int, bool]]) -> Self:
        """Those on some updates: device, position, and whether it is suspicious."""
        verdicts = cls()
        for device, position, suspicious in found:
            verdicts.note(device, position, suspicious=suspicious)
        return verdicts

    @property
    def suspicious(self) -> int:
        """How many devices are."""
        return sum(each.suspicious for each in self.of_devices.values())

    @property
    def are_overrun(self) -> bool:
        """Whether more than half of the devices are suspicious."""
        return 2 * self.suspicious > len(self.of_devices)

    def copy(self) -> "Verdicts":
        """One that may be changed by itself."""
        return Verdicts(dict(self.of_devices))

    def note(self, device: str, position: int, *, suspicious: bool) -> None:
        """An update of a device is judged, or is known to have been."""
        before = self.of_devices.get(device)
        if before is not None and before.position > position:
            return
        self.of_devices[device] = Verdict(position, suspicious)
        if len(self.of_devices) > DEVICES_JUDGED:
            del self.of_devices[min(self.of_devices, key=lambda each: self.of_devices[each].position)]
