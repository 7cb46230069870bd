"""What the coordinator knows of each device's utility, and which of them it asks for, where a task has `[selection]`.

How long a device's rounds take it knows from the staleness of its last update: so many versions were made meanwhile.

Every device has one vote, its last update's, however large: a threshold is the value of one of them, so that one device
moves it past one other's. Pure.
"""

import math
from dataclasses import dataclass, field
from statistics import median
from typing import Final, NamedTuple

from broker_coordinator.aggregation.selection_pace import SelectionPace, turn_of
from fleet_protocol.cohort import EVERYONE, asking, is_asked
from fleet_protocol.kinds import Selection
from fleet_protocol.selection_plan import SelectionPlan

FEWEST_KNOWN: Final = 5
"""Devices; of fewer, everybody trains."""
MOST_KNOWN: Final = 10_000
"""Devices; a larger fleet's threshold is that of those which sent something last."""
MOST_TIMES_USUAL: Final = 4
"""A device that has sent more times as much as the median one counts as this: nobody raises the mean alone."""
WIDEST: Final = 1.1
"""Times as many devices as are known; the width grows no further, as it would take long to come back."""
MARGIN: Final = 1.5
"""Times as many devices as the buffer takes updates are asked at least: some are off, or have no new samples."""


class Told(NamedTuple):
    """What a device's last update tells: its utility were it fast, and its staleness in versions."""

    utility: float
    staleness: int


@dataclass(slots=True)
class Utilities:
    """What each device's last update told, and how many updates each has sent, by name; the device with the newest
    update is last. `pace` is how fast versions come.
    """

    pace: SelectionPace = field(default_factory=SelectionPace)
    _told: dict[str, Told] = field(default_factory=dict)
    _updates: dict[str, int] = field(default_factory=dict)

    def note(self, device: str, told: Told, updates: int = 1) -> None:
        """Versions hold so many more `updates` of the device, of which the last has told this."""
        self._told.pop(device, None)
        self._told[device] = told
        self._updates[device] = self._updates.get(device, 0) + updates
        if len(self._told) > MOST_KNOWN:
            oldest = next(iter(self._told))
            del self._told[oldest], self._updates[oldest]

    def version_made(self, seconds: float, buffer_size: int, *, in_time: bool) -> None:
        """One more is made, so long after the one before; `in_time`: before everybody had to be asked after all."""
        self.pace.version_made(seconds, turn_of(len(self._told), buffer_size), in_time=in_time)

    def selection(
        self, plan: SelectionPlan, task: str, version: int, *, versions: int, buffer_size: int
    ) -> Selection | None:
        """What to ask devices for that train from `version`, so many `versions` after the task's first one; None where
        nothing is known.
        """
        known = len(self._told)
        if self.pace.asks_everyone(turn_of(known, buffer_size)) or known < FEWEST_KNOWN:
            return self.everyone()
        fewest = max(plan.share * known, MARGIN * buffer_size)
        self.pace.width = max(1.0, min(self.pace.width, WIDEST * known / fewest))
        wanted = math.ceil(self.pace.width * fewest)
        self.pace.is_widest = wanted >= known
        if self.pace.is_widest:
            return self.everyone()
        seconds = self.pace.version_seconds
        worth = {each: told.utility * plan.discount(told.staleness, seconds) for each, told in self._told.items()}
        below = round(EVERYONE * plan.new_drawn(versions))
        if plan.method == "power_of_choice":
            below = max(round(EVERYONE * plan.drawn_candidates), asking(wanted, task, version, worth))
            worth = {device: each for device, each in worth.items() if is_asked(task, version, device, below)}
        least = sorted(worth.values(), reverse=True)[wanted - 1]
        return Selection(least, below, self._mean_updates(), seconds)

    def everyone(self) -> Selection | None:
        """What lets every device train; None where nothing is known."""
        return Selection(0.0, EVERYONE, self._mean_updates(), self.pace.version_seconds) if self._told else None

    def _mean_updates(self) -> float:
        most = MOST_TIMES_USUAL * median(self._updates.values())
        return sum(min(each, most) for each in self._updates.values()) / len(self._updates)
