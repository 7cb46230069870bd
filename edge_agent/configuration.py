"""The agent's configuration file, `agent.toml`."""

from pathlib import Path
from typing import Annotated

import msgspec

from edge_agent.core.guards import GuardSettings
from edge_agent.core.triggers import TriggerSettings
from edge_agent.worker.settings import WorkerSettings
from fleet_host.broker_settings import BrokerSettings
from fleet_host.configuration_file import read_configuration
from fleet_protocol.bundle import PositiveInt
from fleet_protocol.configuration import Name
from fleet_protocol.errors import ConfigurationError


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many samples are kept per task; the oldest are deleted first."""

    maximum_samples: PositiveInt = 5000


class TaskSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task in which this device takes part."""

    name: Name
    trigger: TriggerSettings = TriggerSettings()


class AgentConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. Relative paths start at the folder that the file is in.

    `coordinator_key` pins the public key (64 hex digits) whose manifests, chunks and receipts are trusted. With
    `encrypt_updates` updates are encrypted for that key: the broker's operator sees only their size and base version.
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
