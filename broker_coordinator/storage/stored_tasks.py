"""A task's row, as a transaction sees it."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from broker_coordinator.storage.change_counters import TASKS, count_up
from broker_coordinator.storage.schema import tasks
from fleet_protocol.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task by its name; `bundle` is the SHA-256 of its `task.json`, whose own version is `first_version`.

    Devices follow a higher `generation` whatever version they know. Of one that is `removed`, nothing else is left.
    The version `wanted_version` is made of what waits, even of too few. Where rounds went on from a solved head, its
    versions were `solved_first` to `solved_last`.
    """

    name: str
    bundle: str
    paused: bool
    generation: int
    first_version: int
    removed: bool
    wanted_version: int | None = None
    solved_first: int | None = None
    solved_last: int | None = None


STORED_TASKS = select(
    tasks.c.name,
    tasks.c.bundle,
    tasks.c.paused,
    tasks.c.generation,
    tasks.c.first_version,
    tasks.c.removed,
    tasks.c.wanted_version,
    tasks.c.solved_first,
    tasks.c.solved_last,
)
"""To narrow down with `where`."""


def stored_task(connection: Connection, name: str) -> StoredTask | None:
    """One that is there, or was and is removed."""
    row = connection.execute(STORED_TASKS.where(tasks.c.name == name)).first()
    return StoredTask(**row._mapping) if row else None


def served_task(connection: Connection, name: str) -> StoredTask:
    """One that is served.

    Raises:
        ConfigurationError: there is no such task.
    """
    found = stored_task(connection, name)
    if found is None or found.removed:
        names = select(tasks.c.name).where(tasks.c.removed.is_(False)).order_by(tasks.c.name)
        served = ", ".join(connection.scalars(names)) or "none"
        raise ConfigurationError(f"this coordinator serves no task {name!r}; it serves {served}")
    return found


def change_task(connection: Connection, name: str, values: Mapping[str, object]) -> None:
    """Write some of its columns; a running coordinator notices."""
    connection.execute(update(tasks).where(tasks.c.name == name).values(values))
    count_up(connection, TASKS)
