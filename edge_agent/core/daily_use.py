"""What a device has used today: processor time of trainings, and bytes on the link. Pure."""

from dataclasses import dataclass

DAY_SECONDS = 86_400
MAX_DAYS_RUNNING = 1_000_000
"""Of one start: so many numbers of days are kept for each."""


def calendar_day(year: int, day_of_year: int) -> int:
    """The number of a local day."""
    return 1000 * year + day_of_year


def running_day(boot: int, seconds: float) -> int:
    """The number of a day of a machine that does not know the time: counted from its start, which is number `boot`.

    No day of the calendar, and none of another start, has it: where each start is in 1970, a budget would never end.
    """
    return -(boot * MAX_DAYS_RUNNING + int(seconds // DAY_SECONDS) % MAX_DAYS_RUNNING)


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
