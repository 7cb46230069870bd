"""What the coordinator knows of each device's utility, and which of them it asks for, where a task has `[selection]`.

How long a device's rounds take it knows from the staleness of its last update: so many times as long as a version takes
to come.

Every device has one vote, its last update's, however large: a threshold is the value of one of them, so that one device
moves it past one other's. Pure.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Final, NamedTuple

from fleet_protocol.cohort import EVERYONE
from fleet_protocol.kinds import Selection
from fleet_protocol.selection_plan import SelectionPlan

FEWEST_KNOWN: Final = 5
"""Devices; of fewer, everybody trains."""
MOST_KNOWN: Final = 10_000
"""Devices; a larger fleet's threshold is that of those which sent something last."""
MOST_TIMES_USUAL: Final = 4
"""A device that has sent more times as much as the median one counts as this: nobody raises the mean alone."""
VERSIONS_TIMED: Final = 20


class Told(NamedTuple):
    """What a device's last update tells: its utility were it fast, and its staleness in versions."""

    utility: float
    staleness: int


@dataclass(slots=True)
class Utilities:
    """What each device's last update told, and how many updates each has sent, by name; the device with the newest
    update is last. `_made_at` are the times of the last versions, in seconds on the caller's clock.
    """

    _told: dict[str, Told] = field(default_factory=dict)
    _updates: dict[str, int] = field(default_factory=dict)
    _made_at: deque[float] = field(default_factory=lambda: deque(maxlen=VERSIONS_TIMED))

    @classmethod
    def of(cls, told: Iterable[tuple[str, Told]], updates: Iterable[tuple[str, int]]) -> "Utilities":
        """As a journal has them, the newest last; `updates` are of all devices."""
        found = cls()
        for device, each in told:
            found.note(device, each)
        found._updates |= {device: count for device, count in updates if device in found._told}
        return found

    def note(self, device: str, told: Told) -> None:
        """A version holds an update of the device."""
        self._told.pop(device, None)
        self._told[device] = told
        self._updates[device] = self._updates.get(device, 0) + 1
        if len(self._told) > MOST_KNOWN:
            oldest = next(iter(self._told))
            del self._told[oldest], self._updates[oldest]

    def version_made(self, now: float) -> None:
        """Time goes by from one version to the next."""
        self._made_at.append(now)

    def selection(self, plan: SelectionPlan, versions: int, buffer_size: int) -> Selection | None:
        """What to ask devices for, so many `versions` after the task's first one; None where everybody is to train, as
        too little is known, or as many as there are fill no buffer.
        """
        known = len(self._told)
        by_worth = max(math.ceil(plan.share * known), buffer_size)
        if plan.method == "power_of_choice":
            by_worth = math.ceil(max(plan.share * known, buffer_size) / plan.drawn_candidates)
        if known < FEWEST_KNOWN or by_worth >= known:
            return None
        drawn = plan.drawn_candidates if plan.method == "power_of_choice" else plan.new_drawn(versions)
        seconds = self._version_seconds()
        worth = [told.utility * plan.discount(told.staleness * seconds, seconds) for told in self._told.values()]
        least = sorted(worth, reverse=True)[by_worth - 1]
        return Selection(least, round(EVERYONE * drawn), self._mean_updates(), seconds)

    def _mean_updates(self) -> float:
        most = MOST_TIMES_USUAL * median(self._updates.values())
        return sum(min(each, most) for each in self._updates.values()) / len(self._updates)

    def _version_seconds(self) -> float:
        made = self._made_at
        return max(0.0, (made[-1] - made[0]) / (len(made) - 1)) if len(made) > 1 else 0.0
