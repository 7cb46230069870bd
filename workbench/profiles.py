"""The shipped device profiles, and how to read one."""

from typing import Annotated

import msgspec

from edge_agent.configuration import StoreSettings
from edge_agent.core.guards import GuardSettings
from edge_agent.profiles import profile_file
from edge_agent.worker.settings import WorkerSettings
from fleet_protocol.configuration import PositiveInt, parse_document

Rate = Annotated[float, msgspec.Meta(gt=0, le=1e12)]
Duration = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
SamplesPerHour = Annotated[float, msgspec.Meta(gt=0, le=1e6)]
CrashesPerDay = Annotated[float, msgspec.Meta(ge=0, le=10_000)]
HoursOn = Annotated[float, msgspec.Meta(gt=0, le=24)]
"""What a simulation can run on: no infinity, and no rate of events that never lets it end."""


class SimulationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `edgeflock simulate` assumes of this kind of device: medians."""

    training_mflops: Rate
    """Millions of floating point operations per second in training."""
    start_seconds: Duration
    """In seconds: until the worker has loaded its libraries."""
    uplink_kbit_s: Rate
    """In kbit/s."""
    downlink_kbit_s: Rate
    """In kbit/s."""
    latency_ms: Duration
    """In milliseconds, one way."""
    samples_per_hour: SamplesPerHour
    """How many samples arrive."""
    speed_spread: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.2
    """Sigma of the lognormal that each device's speed is drawn from."""
    online_hours: HoursOn = 24.0
    """Hours of each day in which it is on."""
    crashes_per_day: CrashesPerDay = 0.0
    """How often the power fails."""
    restart_seconds: Duration = 60.0
    """In seconds: how long a device is away then."""


class Board(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a board has."""

    cores: PositiveInt
    """Processor cores."""
    memory_mib: PositiveInt
    """In MiB."""
    cpu: str
    """Name of the core, as compilers know it."""


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of device: the board, what a simulation assumes of it, and three tables for agent.toml."""

    device: Board
    simulation: SimulationSettings
    guards: GuardSettings
    worker: WorkerSettings
    store: StoreSettings


def read_profile(name: str) -> Profile:
    """A profile by its name, such as `pi-4`, or by the path of its file.

    Raises:
        ConfigurationError: there is none, or it is wrong; the message lists those that ship.
    """
    path = profile_file(name)
    return parse_document(path.read_bytes(), Profile, str(path))
