"""The tasks in the database: what an operator does to them, and what a running coordinator reads of them.

Bundles are kept in the database, so that a published one is served at once, survives the folder it came from, and is
part of the one thing that needs a backup.
"""

from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, func, insert, select, update

from broker_coordinator.aggregation.version import Version, version_zero
from broker_coordinator.consumers import version_consumer
from broker_coordinator.storage.change_counters import TASKS, count_up
from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.departures import insert_departure
from broker_coordinator.storage.journal import TasksChangedError, insert_version
from broker_coordinator.storage.records import Evaluation
from broker_coordinator.storage.schema import bundle_files, evaluations, tasks, versions
from bundle_runtime.bundle import Bundle
from fleet_protocol.bundle import DESCRIPTION_FILE, parse_description
from fleet_protocol.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task by its name; `bundle` is the SHA-256 of its `task.json`."""

    name: str
    bundle: str
    paused: bool


class TaskRegistry:
    """Publishes, pauses and rolls back tasks. A running coordinator notices (`change_counters`).

    Every method raises JournalUnavailableError where the database fails.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._bundles: dict[str, Bundle] = {}
        """Those that were read before: what is published does not change."""

    def tasks(self) -> list[StoredTask]:
        """All tasks by name."""
        with reading(self._engine) as connection:
            return [StoredTask(**row._mapping) for row in connection.execute(_TASKS.order_by(tasks.c.name))]

    def task(self, name: str) -> StoredTask:
        """One of them.

        Raises:
            ConfigurationError: there is no such task.
        """
        with reading(self._engine) as connection:
            return _task(connection, name)

    def bundle(self, name: str) -> Bundle:
        """A task's bundle.

        Raises:
            ConfigurationError: there is no such task.
        """
        if name not in self._bundles:
            with reading(self._engine) as connection:
                _task(connection, name)
                rows = connection.execute(select(bundle_files).where(bundle_files.c.task == name))
                files = {row.name: row.data for row in rows}
            self._bundles[name] = Bundle(parse_description(files[DESCRIPTION_FILE], f"task {name}"), files)
        return self._bundles[name]

    def readable_bundles(self) -> list[Bundle]:
        """Those of all tasks, without what can't be read here: whoever makes versions says so."""
        found = []
        for task in self.tasks():
            with suppress(ConfigurationError, KeyError):
                found.append(self.bundle(task.name))
        return found

    def publish(self, bundle: Bundle) -> StoredTask:
        """Serve a bundle from version 0 on; one that is served already stays as it is.

        Raises:
            ConfigurationError: its task is served with another bundle, or nothing here makes versions of it.
        """
        name, kind = bundle.description.task, version_consumer(bundle.description).kind
        with writing(self._engine) as connection:
            served = connection.scalar(select(tasks.c.bundle).where(tasks.c.name == name))
            if served is None:
                connection.execute(
                    insert(tasks).values(name=name, bundle=bundle.hash, paused=False, version_kind=kind.number)
                )
                rows = [{"task": name, "name": file, "data": data} for file, data in bundle.files.items()]
                connection.execute(insert(bundle_files), rows)
                insert_version(connection, version_zero(bundle))
                count_up(connection, TASKS)
            elif served != bundle.hash:
                raise ConfigurationError(
                    f"task {name}: the bundle is {bundle.hash[:16]}…, but the database has versions of {served[:16]}…;"
                    " give a changed task a new name"
                )
            return _task(connection, name)

    def set_paused(self, name: str, *, paused: bool) -> StoredTask:
        """Refuse the payloads of a task for now, or accept them again.

        Raises:
            ConfigurationError: there is no such task.
        """
        with writing(self._engine) as connection:
            _task(connection, name)
            connection.execute(update(tasks).where(tasks.c.name == name).values(paused=paused))
            count_up(connection, TASKS)
            return _task(connection, name)

    def roll_back(self, name: str, number: int) -> Version:
        """Make a new version with the weights and the optimiser's state of version `number`; versions only count up.

        Updates that wait go into the version after it: they are receipted, so they count.

        Raises:
            ConfigurationError: there is no such task or version, its weights are dropped, or it is the newest.
        """
        with writing(self._engine) as connection:
            _task(connection, name)
            newest = connection.scalar(select(func.max(versions.c.number)).where(versions.c.task == name))
            wanted = select(versions).where(versions.c.task == name, versions.c.number == number)
            row = connection.execute(wanted).first()
            if row is None or row.weights is None or number == newest:
                why = (
                    "is the newest already" if number == newest else "is not in the journal, or its weights are dropped"
                )
                raise ConfigurationError(
                    f"version {number} of task {name!r} {why}; see which are kept with: broker-coordinator tasks show"
                )
            restored = Version(name, newest + 1, row.weights, row.weights_hash, row.moments, row.unrounded, number)
            insert_version(connection, restored)
            count_up(connection, TASKS)
            return restored

    def add_version_without(self, version: Version, device: str, replayed_from: int) -> None:
        """Add a version that is a replay without a device's updates, as the next one of its task.

        Raises:
            TasksChangedError: another version was made meanwhile; nothing was committed.
        """
        newest = select(func.max(versions.c.number)).where(versions.c.task == version.task)
        with writing(self._engine) as connection:
            if connection.scalar(newest) != version.number - 1:
                raise TasksChangedError
            insert_version(connection, version)
            insert_departure(connection, version.task, device, version.number - 1, replayed_from)
            count_up(connection, TASKS)

    def add_evaluation(self, name: str, found: Evaluation) -> None:
        """Store how good a version is, in place of what was stored before."""
        row = {"samples": found.samples, "loss": found.loss, "accuracy": found.accuracy}
        same = (evaluations.c.task == name, evaluations.c.version == found.version)
        with writing(self._engine) as connection:
            if not connection.execute(update(evaluations).where(*same).values(row)).rowcount:
                connection.execute(insert(evaluations).values(task=name, version=found.version, **row))


_TASKS = select(tasks.c.name, tasks.c.bundle, tasks.c.paused)


def _task(connection: Connection, name: str) -> StoredTask:
    row = connection.execute(_TASKS.where(tasks.c.name == name)).first()
    if row is None:
        served = ", ".join(connection.scalars(select(tasks.c.name).order_by(tasks.c.name))) or "none"
        raise ConfigurationError(f"this coordinator serves no task {name!r}; it serves {served}")
    return StoredTask(**row._mapping)
