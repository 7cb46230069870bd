"""Who may use the relay, read from the coordinator's database whenever an operator, or the coordinator, changes it."""

from collections.abc import Iterator
from typing import TypeAlias

from sqlalchemy import Connection, Engine, func, select

from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.storage.change_counters import change_counters_in
from broker_coordinator.storage.database import reading
from broker_coordinator.storage.helper_registry import allowed_helpers
from broker_coordinator.storage.schema import devices
from broker_coordinator.storage.task_conditions import newest_number_in
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_protocol.keys import VerifyKey
from session_relay.relay.core.directory import Directory, ServedTask

_APPROVED = devices.c.state == DeviceState.APPROVED.value

_Mark: TypeAlias = tuple[dict[str, int], int, int]


class DirectorySource:
    """Reads the directory. Every method raises JournalUnavailableError where the database fails."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._registry = TaskRegistry(engine)
        self._mark: _Mark | None = None
        self._devices: dict[str, VerifyKey] = {}
        self._helpers: frozenset[str] = frozenset()

    def read(self) -> Directory:
        """The directory as it is now. What has not changed since the last call is not read again, but for the numbers
        of versions.
        """
        with reading(self._engine) as connection:
            mark = _mark(connection)
            if mark != self._mark:
                rows = connection.execute(select(devices.c.name, devices.c.public_key).where(_APPROVED))
                self._devices = {row.name: VerifyKey(row.public_key) for row in rows}
                self._helpers = frozenset(allowed_helpers(connection))
        self._mark = mark
        return Directory(self._devices, self._helpers, dict(self._tasks()))

    def _tasks(self) -> Iterator[tuple[str, ServedTask]]:
        for task, bundle in self._registry.served().readable:
            split = bundle.description.split
            with reading(self._engine) as connection:
                newest = newest_number_in(connection, task.name)
            oldest = max(task.first_version, newest - bundle.description.aggregation.max_staleness)
            cuts = frozenset(cut.name for cut in split.cuts) if split else frozenset()
            yield task.name, ServedTask(bytes.fromhex(task.bundle), task.generation, oldest, cuts, task.paused)


def _mark(connection: Connection) -> _Mark:
    """Changes whenever a device or a helper may have been let in or shut out."""
    changed, approved = connection.execute(select(func.max(devices.c.changed), func.count().filter(_APPROVED))).one()
    return change_counters_in(connection), changed or 0, approved
