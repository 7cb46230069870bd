"""What a fleet of several shards asks of its configuration and its tasks, in words."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from broker_coordinator.configuration import CoordinatorConfiguration
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription


def serving(configuration: CoordinatorConfiguration, shard: str | None, file: Path) -> CoordinatorConfiguration:
    """The configuration of the process that serves `shard`; None: the one that it names. It was read from `file`.

    Raises:
        ConfigurationError: the fleet has no such shard, or several and a database for one process.
    """
    shards = configuration.served_shards
    if shard is not None and shard not in shards:
        raise ConfigurationError(
            f"--shard {shard!r} is none of the shards {list(shards)}; name one of them, or add it to `shards` in {file}"
        )
    if len(shards) > 1 and "://" not in configuration.database:
        raise ConfigurationError(
            f"{file}: {len(shards)} shards share no SQLite file, which is for one process; let `database` name a"
            " PostgreSQL database (to copy what is there: broker-coordinator database copy), or keep one shard"
        )
    return configuration if shard is None else msgspec.structs.replace(configuration, shard=shard)


def require_no_masks(descriptions: Iterable[TaskDescription], shards: Sequence[str]) -> None:
    """Refuse tasks that mask helpers take part in: they answer to one process, the only one that makes versions.

    Raises:
        ConfigurationError: there is one, and the fleet has several shards.
    """
    masked = next((each.task for each in descriptions if each.masks is not None), None)
    if masked is not None and len(shards) > 1:
        raise ConfigurationError(
            f"task {masked!r} has [privacy.masks], whose cohorts need a fleet with one shard, not {len(shards)}: leave"
            " `shards` with one name, or the task out"
        )
