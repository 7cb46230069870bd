"""What a profile says, and when it contradicts itself. Pure."""

from typing import Annotated

import msgspec

from edge_agent.core.guards import GuardSettings
from edge_agent.core.store_settings import StoreSettings
from edge_agent.core.triggers import TriggerSettings
from edge_agent.worker.settings import WorkerSettings
from fleet_protocol.configuration import PositiveInt

Rate = Annotated[float, msgspec.Meta(ge=1e-6, le=1e12)]
Duration = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
SamplesPerHour = Annotated[float, msgspec.Meta(ge=1e-6, le=1e6)]
CrashesPerDay = Annotated[float, msgspec.Meta(ge=0, le=10_000)]
HoursOn = Annotated[float, msgspec.Meta(ge=1e-3, le=24)]
"""What a simulation can run on: no infinity, no rate of events that never lets it end, and none at which nothing ever
happens."""

LONGEST_TEXT = 200
"""Characters of what a profile says in words."""
Text = Annotated[str, msgspec.Meta(max_length=LONGEST_TEXT)]


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


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the device is."""

    cores: PositiveInt
    """Processor cores."""
    memory_mib: PositiveInt
    """In MiB, as its maker says; Linux sees less."""
    cpu: Text
    """Name of the core, as compilers know it."""
    name: Text = ""
    """What it is called."""
    source: list[Text] = []
    """Where that is from: the maker's page, or a measurement."""
    model: Text = ""
    """How `/proc/device-tree/model` begins on it; empty: it isn't detected."""


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `edge-agent measure` saw; nothing else reads it."""

    step_seconds: Rate
    """A training step of the bundle of digits, in seconds of one thread."""
    peak_memory_mib: Rate
    """Of the worker then, in MiB."""
    hash_mib_s: Rate
    """SHA-256, in MiB/s of one core."""
    compress_mib_s: Rate
    """Zstandard as updates use it, in MiB/s of one core."""
    disk_write_mib_s: Rate
    """Written and flushed where the state is kept, in MiB/s."""
    temperature_sensor: Text = ""
    """The sensor of the board; empty: there is none."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all devices of a place may take: over their profiles, below what agent.toml says itself."""

    guards: GuardSettings = GuardSettings()
    worker: WorkerSettings = WorkerSettings()
    store: StoreSettings = StoreSettings()
    trigger: TriggerSettings = TriggerSettings()
    """Of tasks that have none in agent.toml."""


class Profile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of device: what it is, what a simulation assumes of it, and what an agent may take of it."""

    device: Device
    simulation: SimulationSettings
    inherits: str = ""
    """A shipped profile, or the path of one ending in `.toml`, from this file's folder. What this file leaves out is as
    it is there."""
    guards: GuardSettings = GuardSettings()
    worker: WorkerSettings = WorkerSettings()
    store: StoreSettings = StoreSettings()
    trigger: TriggerSettings = TriggerSettings()
    """Of tasks that have none in agent.toml."""
    measured: Measured | None = None

    @property
    def limits(self) -> Limits:
        """What an agent may take."""
        return Limits(self.guards, self.worker, self.store, self.trigger)

    def __post_init__(self) -> None:
        """Refuse what contradicts itself; raises ValueError."""
        if found := [*excesses(self.limits, self.device.cores, self.device.memory_mib, "the device")]:
            raise ValueError("; ".join(found))
        if self.guards.minimum_samples > self.store.maximum_samples:
            raise ValueError(
                f"guards.minimum_samples = {self.guards.minimum_samples}, but store.maximum_samples ="
                f" {self.store.maximum_samples} keeps fewer: it would never train; lower the first"
            )


def excesses(limits: Limits, cores: int, memory_mib: float, holder: str) -> list[str]:
    """What `limits` take beyond the `cores` and `memory_mib` that `holder` has, in words with value and remedy."""
    worker, free = limits.worker, limits.guards.minimum_free_memory_mib or 0
    found = []
    if worker.threads > cores:
        found.append(f"worker.threads = {worker.threads}, but {holder} has {cores} cores; lower it")
    if (most := worker.memory_limit_mib) > memory_mib:
        found.append(f"worker.memory_limit_mib = {most}, but {holder} has {memory_mib:.0f} MiB; lower it")
    if free >= memory_mib:
        found.append(f"guards.minimum_free_memory_mib = {free:g}, but {holder} has {memory_mib:.0f} MiB; lower it")
    return found
