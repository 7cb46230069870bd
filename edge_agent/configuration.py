"""The agent's configuration file, `agent.toml`."""

from pathlib import Path
from typing import Annotated

import msgspec

from edge_agent.worker.contract import EngineName
from fleet_host.broker_settings import BrokerSettings
from fleet_host.configuration_file import read_configuration
from fleet_protocol.configuration import Name
from fleet_protocol.errors import ConfigurationError

PositiveInt = Annotated[int, msgspec.Meta(ge=1)]
PositiveFloat = Annotated[float, msgspec.Meta(gt=0)]


class TriggerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why the agent wakes: this many samples arrived since the last round of a task."""

    new_samples: PositiveInt = 32


class GuardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why it may not train, though woken. A limit that is left out is not checked.

    `minimum_samples` are samples in the store; the rest are readings of the machine (Celsius, percent, MiB).
    No update is made that would be more than the `maximum_waiting_updates`-th in the outbox.
    """

    minimum_samples: PositiveInt = 16
    maximum_waiting_updates: PositiveInt = 8
    maximum_temperature_celsius: PositiveFloat | None = None
    minimum_battery_percent: PositiveFloat | None = None
    minimum_free_memory_mib: PositiveFloat | None = 64.0
    recheck_seconds: PositiveFloat = 60.0


class WorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the training child process may use, and the engine that it trains with (docs/training-engines.md).

    With a `cpu_share` below 1 it runs for that share of the time only: for devices that get hot, or run on batteries.
    """

    threads: PositiveInt = 1
    cpu_share: Annotated[float, msgspec.Meta(ge=0.01, le=1)] = 1.0
    nice: Annotated[int, msgspec.Meta(ge=0, le=19)] = 10
    memory_limit_mib: PositiveInt = 512
    time_limit_seconds: PositiveFloat = 300.0
    engine: EngineName = "onnx-step"


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many samples are kept per task; the oldest make room."""

    maximum_samples: PositiveInt = 5000


class TaskSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task in which this device takes part."""

    name: Name
    trigger: TriggerSettings = TriggerSettings()


class AgentConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. Relative paths are meant from the folder that the file is in.

    `coordinator_key` pins the public key (64 hex digits) whose manifests, chunks and receipts are believed. With
    `encrypt_updates` updates are encrypted for that key: whoever runs the broker learns their size and base version.
    """

    fleet: Name
    device: Name
    key_file: Path
    coordinator_key: str
    state_folder: Path
    sample_socket: Path
    broker: BrokerSettings
    tasks: Annotated[list[TaskSettings], msgspec.Meta(min_length=1)]
    shard: Name = "0"
    profile: str = "generic"
    encrypt_updates: bool = False
    guards: GuardSettings = GuardSettings()
    worker: WorkerSettings = WorkerSettings()
    store: StoreSettings = StoreSettings()


def load_configuration(path: Path) -> AgentConfiguration:
    """Read the file.

    Raises:
        ConfigurationError: it can't be read, or names the key that is missing, unknown or wrong.
    """
    configuration = read_configuration(path, AgentConfiguration)
    names = [task.name for task in configuration.tasks]
    if len(set(names)) != len(names):
        raise ConfigurationError(f"{path}: a task is listed twice in {names}")
    return configuration
