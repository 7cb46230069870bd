"""Triggers: why an agent wakes. Pure."""

from dataclasses import dataclass

import msgspec

from fleet_protocol.configuration import PositiveInt


class TriggerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a device trains for a task."""

    new_samples: PositiveInt = 32
    """So many samples have arrived since the task's last round."""


@dataclass(slots=True)
class SampleTrigger:
    """Counts the samples of one task that no round has seen."""

    settings: TriggerSettings
    new_samples: int

    @property
    def missing_samples(self) -> int:
        """How many have to come until it fires; 0 where it does."""
        return max(0, self.settings.new_samples - self.new_samples)
