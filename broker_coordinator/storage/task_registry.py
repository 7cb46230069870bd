"""The tasks in the database: what an operator does to them, and what a running coordinator reads of them.

Bundles are kept in the database, so that a published one is served at once, survives the folder it came from, and is
part of the one thing that needs a backup. docs/decisions/task-generations.md says what a generation is.
"""

from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, delete, insert, select, update

from broker_coordinator.aggregation.version import version_zero
from broker_coordinator.consumers import version_consumer
from broker_coordinator.storage.change_counters import TASKS, count_up
from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.journal import TasksChangedError, insert_aggregate, insert_version
from broker_coordinator.storage.noise_seeds import begin_series
from broker_coordinator.storage.records import Aggregate
from broker_coordinator.storage.schema import bundle_files, tasks
from broker_coordinator.storage.stored_tasks import STORED_TASKS, StoredTask, change_task, served_task, stored_task
from broker_coordinator.storage.task_conditions import newest_number_in
from broker_coordinator.storage.task_rows import begin_aggregates_anew, delete_rows, set_aside_waiting, stop_queries
from bundle_runtime.bundle import Bundle
from fleet_protocol.bundle import parse_description
from fleet_protocol.bundle_files import DESCRIPTION_FILE
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_GENERATION
from fleet_protocol.task_description import TaskDescription


@dataclass(frozen=True, slots=True)
class Served:
    """The tasks with their bundles, and by name those whose bundle can't be read."""

    readable: list[tuple[StoredTask, Bundle]] = field(default_factory=list)
    unreadable: dict[str, Exception] = field(default_factory=dict)


class TaskRegistry:
    """Publishes, pauses and removes tasks. A running coordinator notices (`change_counters`).

    Every method raises JournalUnavailableError where the database fails.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._bundles: dict[str, Bundle] = {}
        """By the SHA-256 of `task.json`, those that were read before."""

    def tasks(self) -> list[StoredTask]:
        """All tasks that are served, by name."""
        return [task for task in self._all() if not task.removed]

    def removed_tasks(self) -> list[StoredTask]:
        """Those that an operator has removed, by name."""
        return [task for task in self._all() if task.removed]

    def task(self, name: str) -> StoredTask:
        """One that is served.

        Raises:
            ConfigurationError: there is no such task.
        """
        with reading(self._engine) as connection:
            return served_task(connection, name)

    def bundle(self, name: str) -> Bundle:
        """A served task's bundle.

        Raises:
            ConfigurationError: there is no such task.
        """
        with reading(self._engine) as connection:
            task = served_task(connection, name)
            files = self._read_files(connection, task)
        return self._bundle(task, files)

    def description(self, name: str) -> TaskDescription:
        """What a served task's bundle says, without its graphs and weights.

        Raises:
            ConfigurationError: there is no such task, or what it says can't be read.
        """
        said = select(bundle_files.c.data).where(bundle_files.c.task == name, bundle_files.c.name == DESCRIPTION_FILE)
        with reading(self._engine) as connection:
            served_task(connection, name)
            text = connection.scalar(said)
        return parse_description(text or b"", f"task {name}")

    def served(self) -> Served:
        """All tasks that are served, by name, each with its bundle, as they are at one moment."""
        with reading(self._engine) as connection:
            rows = connection.execute(STORED_TASKS.where(tasks.c.removed.is_(False)).order_by(tasks.c.name)).all()
            stored = [StoredTask(**row._mapping) for row in rows]
            files = [self._read_files(connection, task) for task in stored]
        found = Served()
        for task, content in zip(stored, files, strict=True):
            try:
                found.readable.append((task, self._bundle(task, content)))
            except (ConfigurationError, KeyError) as error:
                found.unreadable[task.name] = error
        self._bundles = {task.bundle: bundle for task, bundle in found.readable}
        return found

    def _read_files(self, connection: Connection, task: StoredTask) -> dict[str, bytes]:
        """Those of its bundle; none where it was read before."""
        if task.bundle in self._bundles:
            return {}
        rows = connection.execute(select(bundle_files).where(bundle_files.c.task == task.name))
        return {row.name: row.data for row in rows}

    def _bundle(self, task: StoredTask, files: dict[str, bytes]) -> Bundle:
        if task.bundle not in self._bundles:
            description = parse_description(files[DESCRIPTION_FILE], f"task {task.name}")
            self._bundles[task.bundle] = Bundle(description, files)
        return self._bundles[task.bundle]

    def publish(self, bundle: Bundle) -> StoredTask:
        """Serve a bundle; one that is served already stays as it is.

        A task that is served with another bundle gets a new generation: devices begin again with this one's weights.
        Version numbers count on.

        Raises:
            ConfigurationError: nothing here makes versions of it, or the task has no generation left.
        """
        name = bundle.description.task
        version_consumer(bundle.description)
        with reading(self._engine) as connection:
            known = stored_task(connection, name)
        if known is not None and known.removed:
            _generation_after(name, known.generation)
            delete_rows(self._engine, name)  # where that was interrupted
        with writing(self._engine) as connection:
            known = stored_task(connection, name)
            if known is None or known.removed or known.bundle != bundle.hash:
                _serve(connection, bundle, known)
            return served_task(connection, name)

    def publish_rescaled(
        self, bundle: Bundle, scale: Aggregate, *, before: str, payload_count: int, last_position: int
    ) -> StoredTask:
        """Serve a task's bundle with its scale in place of the one with the hash `before`, which awaited it.

        The aggregate `scale` is committed with it, and holds the waiting payloads of its kind: `payload_count`, up to
        `last_position`.

        Raises:
            TasksChangedError: the task has another bundle by now; nothing was committed.
            ConfigurationError: the task has no generation left.
            RuntimeError: as `Journal.add_aggregate`.
        """
        with writing(self._engine) as connection:
            known = stored_task(connection, scale.task)
            if known is None or known.removed or known.bundle != before:
                raise TasksChangedError
            insert_aggregate(connection, scale, payload_count=payload_count, last_position=last_position)
            _serve(connection, bundle, known)
            return served_task(connection, scale.task)

    def publish_refined(self, bundle: Bundle, *, before: str, newest: int) -> StoredTask:
        """Serve a task's bundle in place of the one with the hash `before`; its own version is the solved head of
        version `newest`.

        Raises:
            TasksChangedError: the task has another bundle or a later version by now; nothing was committed.
            ConfigurationError: the task has no generation left.
        """
        name = bundle.description.task
        with writing(self._engine) as connection:
            known = served_task(connection, name)
            if known.bundle != before or newest_number_in(connection, name) != newest:
                raise TasksChangedError
            _serve(connection, bundle, known)
            change_task(connection, name, {"solved_first": known.first_version, "solved_last": newest})
            return served_task(connection, name)

    def publish_if_missing(self, bundle: Bundle) -> StoredTask:
        """Serve a bundle if its task never was; returns the task, which may have another bundle, or be removed.

        Raises:
            ConfigurationError: nothing here makes versions of it.
        """
        version_consumer(bundle.description)
        with writing(self._engine) as connection:
            if known := stored_task(connection, bundle.description.task):
                return known
            _serve(connection, bundle, None)
            return served_task(connection, bundle.description.task)

    def renew(self, name: str, *, after_generation: int = 0) -> StoredTask:
        """Begin a generation after `after_generation` and the task's own: devices follow it whatever they know.

        Raises:
            ConfigurationError: there is no such task, or no generation left.
        """
        with writing(self._engine) as connection:
            return _renew(connection, name, after_generation)

    def renew_behind(self, name: str, heard: int) -> StoredTask | None:
        """Begin a generation after `heard`, which devices have heard of; None where there is one by now: of several
        shards' processes that find out about it together, the first begins it.

        Raises:
            ConfigurationError: there is no such task, or no generation left.
        """
        with writing(self._engine) as connection:
            known = stored_task(connection, name)
            return None if known is not None and known.generation > heard else _renew(connection, name, heard)

    def remove(self, name: str) -> StoredTask:
        """Serve a task no longer, and delete its rows, some at a time; its name keeps its generation.

        Payloads that come for it are refused, and devices told, as long as it is not published again. What an
        interrupted removal leaves is deleted by the next one.

        Raises:
            ConfigurationError: there is no such task, or it has no generation left.
        """
        with writing(self._engine) as connection:
            known = stored_task(connection, name) or served_task(connection, name)
            if not known.removed:
                generation = _generation_after(name, known.generation)
                set_aside_waiting(connection, name, "the task was removed")
                stop_queries(connection, name)
                change_task(
                    connection,
                    name,
                    {
                        "removed": True,
                        "generation": generation,
                        "first_version": newest_number_in(connection, name) + 1,
                    },
                )
        delete_rows(self._engine, name)
        with reading(self._engine) as connection:
            return stored_task(connection, name) or known

    def set_paused(self, name: str, *, paused: bool) -> StoredTask:
        """Refuse the payloads of a task for now, or accept them again.

        Raises:
            ConfigurationError: there is no such task.
        """
        with writing(self._engine) as connection:
            served_task(connection, name)
            change_task(connection, name, {"paused": paused})
            return served_task(connection, name)

    def _all(self) -> list[StoredTask]:
        with reading(self._engine) as connection:
            return [StoredTask(**row._mapping) for row in connection.execute(STORED_TASKS.order_by(tasks.c.name))]


def _renew(connection: Connection, name: str, after_generation: int) -> StoredTask:
    known = stored_task(connection, name) or served_task(connection, name)
    generation = _generation_after(name, max(known.generation, after_generation))
    change_task(connection, name, {"generation": generation})
    return stored_task(connection, name) or known


def _serve(connection: Connection, bundle: Bundle, known: StoredTask | None) -> None:
    """Serve a bundle in place of what is `known` of its task."""
    name = bundle.description.task
    first_version = 0
    row = {"bundle": bundle.hash, "version_kind": version_consumer(bundle.description).kind.number, "removed": False}
    row |= {"solved_first": None, "solved_last": None}
    if known is None:
        row |= {"name": name, "paused": False, "generation": 0, "first_version": 0}
        connection.execute(insert(tasks).values(row))
    else:
        row["generation"] = _generation_after(name, known.generation)
        first_version = known.first_version if known.removed else newest_number_in(connection, name) + 1
        set_aside_waiting(connection, name, "the task was published with another bundle")
        stop_queries(connection, name)
        begin_aggregates_anew(connection, name)
        connection.execute(delete(bundle_files).where(bundle_files.c.task == name))
        row["first_version"] = first_version
        connection.execute(update(tasks).where(tasks.c.name == name).values(row))
    files = [{"task": name, "name": file, "data": data} for file, data in bundle.files.items()]
    connection.execute(insert(bundle_files), files)
    insert_version(connection, version_zero(bundle, first_version))
    if bundle.description.device_privacy is not None:
        begin_series(connection, name, first_version)
    count_up(connection, TASKS)


def _generation_after(name: str, generation: int) -> int:
    """The next one of a task.

    Raises:
        ConfigurationError: there is none, as devices could not read its manifest.
    """
    if generation >= MAX_GENERATION:
        raise ConfigurationError(
            f"task {name!r}: no generation is left after {generation}, the limit is {MAX_GENERATION}; pause it, and"
            " publish its bundle under another task name"
        )
    return generation + 1
