"""What a device has used today: processor time of trainings, and bytes on the link. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DailyUse:
    """Of one local day, a number that another day does not have."""

    day: int = 0
    cpu_milliseconds: int = 0
    bytes: int = 0

    def and_more(self, day: int, *, cpu_milliseconds: int = 0, transferred: int = 0) -> "DailyUse":
        """With what was used since, which counts for `day`. Another day, an earlier one too, begins from nothing."""
        before = self if day == self.day else DailyUse(day)
        return DailyUse(day, before.cpu_milliseconds + cpu_milliseconds, before.bytes + transferred)


NOTHING_USED = DailyUse()
