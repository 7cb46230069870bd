"""A device's speed, link and hours: drawn from a profile, or read from a trace."""

import math
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
import numpy as np

from edge_agent.core.guards import GuardSettings
from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.core.store_settings import StoreSettings
from edge_agent.profiles import CrashesPerDay, Duration, HoursOn, Profile, Rate, SamplesPerHour, SimulationSettings

DAY_SECONDS, HOUR_SECONDS = 86_400.0, 3_600.0
LINK_SPREAD = 0.5
"""Sigma of the lognormal distribution by which links of one kind of device differ."""


class Conditions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One device. It is on from `opens_at_hour` for `open_hours` of each virtual day, except after a crash.

    `training_mflops`: sustained million floating-point operations a second. A crash ends a running round, and the
    device is back after `restart_seconds`. A kbit is 1,000 bits.
    """

    training_mflops: Rate
    start_seconds: Duration
    uplink_kbit_s: Rate
    downlink_kbit_s: Rate
    latency_ms: Duration
    samples_per_hour: SamplesPerHour
    opens_at_hour: Annotated[float, msgspec.Meta(ge=0, lt=24)] = 0.0
    open_hours: HoursOn = 24.0
    crashes_per_day: CrashesPerDay = 0.0
    restart_seconds: Duration = 60.0

    def seconds_until_open(self, now: float) -> float:
        """How long until the device is on; 0 while it is."""
        since_opening = (now - self.opens_at_hour * HOUR_SECONDS) % DAY_SECONDS
        return 0.0 if since_opening < self.open_hours * HOUR_SECONDS else DAY_SECONDS - since_opening

    def seconds_until_closed(self, now: float) -> float:
        """How long a device that is on stays on; infinite where it never goes off."""
        if self.open_hours >= DAY_SECONDS / HOUR_SECONDS:
            return math.inf
        return self.open_hours * HOUR_SECONDS - (now - self.opens_at_hour * HOUR_SECONDS) % DAY_SECONDS

    def seconds_on(self, now: float, generator: np.random.Generator) -> tuple[float, bool]:
        """How long a device that is switched on now stays on, and whether a crash ends that; `generator` draws it."""
        closing = self.seconds_until_closed(now)
        crash = math.inf
        if self.crashes_per_day > 0:
            crash = generator.exponential(DAY_SECONDS / self.crashes_per_day)
        return min(closing, crash), crash < closing

    def upload_seconds(self, size: int) -> float:
        """From the device to the coordinator, for `size` bytes."""
        return self.latency_ms / 1_000 + size * 8 / (1_000 * self.uplink_kbit_s)

    def download_seconds(self, size: int) -> float:
        """From the coordinator to the device, for `size` bytes."""
        return self.latency_ms / 1_000 + size * 8 / (1_000 * self.downlink_kbit_s)


NO_DEMANDS: Final = PrivacySettings()


@dataclass(frozen=True, slots=True)
class FleetMember:
    """One device of a simulated fleet, its guards, how many samples it keeps, and what its owner demands."""

    conditions: Conditions
    guards: GuardSettings
    maximum_samples: int = StoreSettings().maximum_samples
    owner: PrivacySettings = NO_DEMANDS

    def holds_enough(self, different: int) -> bool:
        """Whether it can ever store as many samples as its guards want, of so many different ones."""
        return min(different, self.maximum_samples) >= self.guards.minimum_samples


DRAWN: Final = 3
"""Numbers by which devices of one kind differ."""


def draw_conditions(generator: np.random.Generator) -> tuple[float, float, float]:
    """How much faster a device is, as a logarithm in units of its kind's spread; how much better its link, likewise;
    and the hour of the day at which it is switched on.
    """
    return generator.standard_normal(), generator.standard_normal(), generator.uniform(0, 24)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of device as a simulation takes it: medians, guards, and how many samples it keeps."""

    settings: SimulationSettings
    cpu_share: float
    guards: GuardSettings
    maximum_samples: int

    @classmethod
    def of(cls, profile: Profile) -> "Kind":
        """That of a profile."""
        guards = msgspec.structs.replace(profile.guards, when_unknown="agree")  # no readings of a machine are modelled
        return cls(profile.simulation, profile.worker.cpu_share, guards, profile.store.maximum_samples)

    def member(self, speed: float, link: float, opens_at_hour: float) -> FleetMember:
        """The device that was drawn so: its speed and link lie around the medians."""
        kind = self.settings
        faster = math.exp(kind.speed_spread * speed)
        better = math.exp(LINK_SPREAD * link)
        conditions = Conditions(
            training_mflops=kind.training_mflops * faster * self.cpu_share,
            start_seconds=kind.start_seconds / faster,
            uplink_kbit_s=kind.uplink_kbit_s * better,
            downlink_kbit_s=kind.downlink_kbit_s * better,
            latency_ms=kind.latency_ms / better,
            samples_per_hour=kind.samples_per_hour,
            opens_at_hour=opens_at_hour,
            open_hours=kind.online_hours,
            crashes_per_day=kind.crashes_per_day,
            restart_seconds=kind.restart_seconds,
        )
        return FleetMember(conditions, self.guards, self.maximum_samples)
