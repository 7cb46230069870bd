"""The coordinator's configuration file, `coordinator.toml`."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from fleet_protocol.configuration import BrokerSettings, Name, parse_document
from fleet_protocol.errors import ConfigurationError


class TaskSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task that this coordinator serves: the folder of its bundle."""

    bundle: Path


class CoordinatorConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file. Relative paths are meant from the folder that the file is in.

    `enrolment` says what happens to a device that introduces itself: `closed` records it and waits for
    `broker-coordinator devices approve`, `open` lets the first `maximum_devices` in (for a lab).
    """

    fleet: Name
    key_file: Path
    database: Path
    broker: BrokerSettings
    tasks: Annotated[list[TaskSettings], msgspec.Meta(min_length=1)]
    shard: Name = "0"
    enrolment: Literal["closed", "open"] = "closed"
    maximum_devices: Annotated[int, msgspec.Meta(ge=1)] = 10_000


def load_configuration(path: Path) -> CoordinatorConfiguration:
    """Read the file.

    Raises:
        ConfigurationError: it can't be read, or names the key that is missing, unknown or wrong.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"configuration {path}: {error.strerror}; write one or pass --config FILE") from error
    parsed = parse_document(text, CoordinatorConfiguration, str(path))
    folder = path.resolve().parent
    return msgspec.structs.replace(
        parsed,
        key_file=folder / parsed.key_file,
        broker=parsed.broker.located(folder),
        database=folder / parsed.database,
        tasks=[TaskSettings(folder / task.bundle) for task in parsed.tasks],
    )
