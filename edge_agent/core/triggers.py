"""Triggers: why an agent wakes. A new condition is a setting, a member of `Condition` and what notes it. Pure."""

from enum import StrEnum
from functools import cache
from typing import Annotated, Final, Literal

import msgspec

from fleet_protocol.configuration import AbsolutePath, Text
from fleet_protocol.limits import MAX_SETTING

STANDARD_ERRORS = 2.0
"""By chance, a loss rises by more than that in one look of forty."""
MAX_WORSE = 1000.0
"""A thousand times as high."""
MAX_SHIFT = 50.0
"""Two distributions without a common value come to some ten."""


class Condition(StrEnum):
    """What a trigger waits for."""

    NEW_SAMPLES = "new samples"
    NEW_VERSION = "new version"
    SCHEDULE = "schedule"
    WAKE_FILE = "wake file"
    INVITED = "invitation"
    WORSE = "worse model"
    DRIFTED = "input drift"
    ASKED = "somebody asked"
    """`edge-agent train --now`, or SIGUSR1: no setting, and enough by itself."""


class TriggerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a device trains for a task: any of these conditions, or all of them."""

    new_samples: Annotated[int, msgspec.Meta(ge=0, le=MAX_SETTING)] = 32
    """So many samples have arrived since the task's last round; 0: samples alone wake nothing."""
    new_version: bool = False
    """There is a newer version than the one that this device trained from last."""
    schedule: Text | None = None
    """A time has come, as the five fields of a cron line give it, in the machine's local time: `"30 2 * * *"`."""
    wake_file: AbsolutePath | None = None
    """Somebody has made this file (an absolute path), which the agent looks for each minute and deletes."""
    invitation: bool = False
    """The coordinator's operator asks for a round: `broker-coordinator tasks invite`."""
    worse_by: Annotated[float, msgspec.Meta(gt=0, le=MAX_WORSE)] | None = None
    """The loss on the newest samples is higher than on the earlier ones by this share of it, and by more than chance:
    0.5 is half as high again."""
    drift: Annotated[float, msgspec.Meta(gt=0, le=MAX_SHIFT)] | None = None
    """The newest samples of one input are so far from the earlier ones, by the population stability index: 0.25 is
    usually called a shift."""
    look_samples: Annotated[int, msgspec.Meta(ge=8, le=MAX_SETTING)] = 32
    """How many are the newest, for `worse_by` and `drift`; they are looked at when so many have come."""
    combine: Literal["any", "all"] = "any"
    """Whether one of the conditions that are set is enough."""

    @property
    def looks(self) -> bool:
        """Whether new samples are looked at."""
        return self.worse_by is not None or self.drift is not None

    def __post_init__(self) -> None:
        """Refuse what every value by itself allows; raises ValueError."""
        if not conditions(self):
            raise ValueError("new_samples = 0 and no other condition: nothing would ever wake the agent")


def found_by(
    settings: TriggerSettings, earlier_loss: float, newest_loss: float, standard_error: float, shift: float
) -> tuple[Condition, ...]:
    """The conditions that a look at the newest samples has met; `standard_error` is of the difference of the losses."""
    risen = newest_loss - earlier_loss
    is_worse = settings.worse_by is not None and (
        risen > settings.worse_by * abs(earlier_loss) and risen > STANDARD_ERRORS * standard_error
    )
    has_drifted = settings.drift is not None and shift > settings.drift
    met = {Condition.WORSE: is_worse, Condition.DRIFTED: has_drifted}
    return tuple(condition for condition, is_met in met.items() if is_met)


@cache
def conditions(settings: TriggerSettings) -> tuple[Condition, ...]:
    """Those that are set."""
    is_set = {
        Condition.NEW_SAMPLES: settings.new_samples > 0,
        Condition.NEW_VERSION: settings.new_version,
        Condition.SCHEDULE: settings.schedule is not None,
        Condition.WAKE_FILE: settings.wake_file is not None,
        Condition.INVITED: settings.invitation,
        Condition.WORSE: settings.worse_by is not None,
        Condition.DRIFTED: settings.drift is not None,
    }
    return tuple(condition for condition, given in is_set.items() if given)


ALL_CONDITIONS: Final = tuple(Condition)


class Trigger:
    """The trigger of one task. An event that was noted stays until a round that began after it has ended."""

    __slots__ = ("_conditions", "_in_round", "_noted", "has_new_version", "new_samples", "settings")

    def __init__(self, settings: TriggerSettings, new_samples: int, *, has_new_version: bool = False) -> None:
        self.settings = settings
        self._conditions = conditions(settings)
        self.new_samples = new_samples
        """Samples that no round has seen."""
        self.has_new_version = has_new_version
        """Whether there is a newer version than the one that this device trained from last."""
        self._noted: set[Condition] = set()
        self._in_round: set[Condition] = set()

    @property
    def missing_samples(self) -> int:
        """How many have to come until there are enough new ones; 0 where there are."""
        return max(0, self.settings.new_samples - self.new_samples)

    @property
    def has_fired(self) -> bool:
        """Whether the agent wakes for the task."""
        combined = any if self.settings.combine == "any" else all
        return self._is_met(Condition.ASKED) or combined(map(self._is_met, self._conditions))

    @property
    def waits_for_version(self) -> bool:
        """Whether a newer version is one of the conditions that lack."""
        return self.settings.new_version and not self.has_new_version

    @property
    def fired_by(self) -> str:
        """The conditions that are met, in words."""
        return ", ".join(condition for condition in ALL_CONDITIONS if self._is_met(condition))

    @property
    def waits_for(self) -> str:
        """The conditions that lack, in words."""
        words = {
            Condition.NEW_SAMPLES: f"{self.missing_samples} more new samples",
            Condition.NEW_VERSION: "a newer version than the last one trained from, which may hold its last update",
            Condition.SCHEDULE: f"the next time of {self.settings.schedule!r}",
            Condition.WAKE_FILE: f"the file {self.settings.wake_file}",
            Condition.INVITED: "an invitation from the coordinator",
            Condition.WORSE: f"a loss that is higher by {self.settings.worse_by:g} of it on new samples"
            if self.settings.worse_by
            else "",
            Condition.DRIFTED: f"a shift of {self.settings.drift:g} in an input" if self.settings.drift else "",
        }
        lacking = [words[condition] for condition in self._conditions if not self._is_met(condition)]
        return (" or " if self.settings.combine == "any" else " and ").join(lacking)

    @property
    def has_noted_nothing(self) -> bool:
        """Whether it counts samples alone: no event, and no newer version."""
        return not (self._noted or self._in_round or self.has_new_version)

    def note(self, condition: Condition) -> None:
        """An event has happened: of the schedule, the file, or somebody has asked."""
        self._noted.add(condition)

    def round_began(self) -> None:
        """What is noted from now on is for the next round."""
        self._in_round |= self._noted
        self._noted.clear()

    def round_ended(self) -> None:
        """Whether or not it sends anything: what was noted before it is over."""
        self._in_round.clear()

    def _is_met(self, condition: Condition) -> bool:
        if condition is Condition.NEW_SAMPLES:
            return 0 < self.settings.new_samples <= self.new_samples
        if condition is Condition.NEW_VERSION:
            return self.settings.new_version and self.has_new_version
        return condition in self._noted or condition in self._in_round
