"""Reads what decoding a message needs from a coordinator's files: keys, devices and tasks."""

from pathlib import Path

from broker_coordinator.admission.fleet_view import Device
from broker_coordinator.configuration import load_configuration
from broker_coordinator.storage.database import Database, open_database
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.key_files import read_key_ring_file
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.errors import ConfigurationError, why_unreadable
from fleet_protocol.keys import KeyRing
from fleet_protocol.task_description import TaskDescription
from workbench.coordinator_database import database_errors_told
from workbench.inspection.decode import DecodingContext

PROGRAM = "broker-coordinator"


def context_of_coordinator(configuration: Path) -> DecodingContext:
    """The context from `coordinator.toml` and the files that it names. The coordinator may be running.

    Raises:
        ConfigurationError: one of them is missing or wrong, or the database can't be read.
    """
    parsed = load_configuration(configuration)
    keys = private_keys(parsed.key_file)
    try:
        named = [parse_description((task.bundle / DESCRIPTION_FILE).read_bytes()) for task in parsed.tasks]
    except OSError as error:
        raise ConfigurationError(f"{error.filename}: {why_unreadable(error, 'name a file that exists')}") from error
    database = parsed.journal()
    with database_errors_told():
        return DecodingContext(
            devices=registered_devices(database),
            coordinator=keys,
            tasks=[*published_tasks(database), *named],
        )


def private_keys(path: Path) -> KeyRing:
    """A coordinator's private key, and those that it has followed.

    Raises:
        ConfigurationError: the file is missing, open to others, or no key.
    """
    return read_key_ring_file(path, PROGRAM)


def registered_devices(database: Database) -> list[Device]:
    """The devices in a coordinator's database.

    Raises:
        ConfigurationError: there is none.
    """
    engine = open_database(database, read_only=True)
    try:
        return DeviceRegistry(engine).devices()
    finally:
        engine.dispose()


def published_tasks(database: Database) -> list[TaskDescription]:
    """The tasks in a coordinator's database: those of its configuration, and those published by command.

    Raises:
        ConfigurationError: there is none.
    """
    engine = open_database(database, read_only=True)
    try:
        registry = TaskRegistry(engine)
        return [registry.bundle(task.name).description for task in registry.tasks()]
    finally:
        engine.dispose()
