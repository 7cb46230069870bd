"""The versions of the tasks in the database: what an operator does to them."""

from sqlalchemy import Engine, func, insert, select, update

from broker_coordinator.aggregation.lineage import Departure
from broker_coordinator.aggregation.version import Version
from broker_coordinator.storage.change_counters import TASKS, count_up
from broker_coordinator.storage.database import writing
from broker_coordinator.storage.departures import insert_departure
from broker_coordinator.storage.journal import TasksChangedError, following, insert_version
from broker_coordinator.storage.records import Evaluation
from broker_coordinator.storage.schema import WAITING, evaluations, versions
from broker_coordinator.storage.stored_tasks import change_task, served_task
from broker_coordinator.storage.task_conditions import newest_number_in, updates_of
from fleet_protocol.errors import ConfigurationError


class VersionRegistry:
    """Asks for versions, goes back to one, and adds what is known of them. A running coordinator notices.

    Every method raises JournalUnavailableError where the database fails.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def want(self, name: str) -> tuple[int, int]:
        """Let the next version be made of what waits, even of too few; its number, and how many wait.

        Raises:
            ConfigurationError: there is no such task, or nothing waits.
        """
        with writing(self._engine) as connection:
            served_task(connection, name)
            waiting = connection.scalar(select(func.count()).where(*updates_of(name), WAITING)) or 0
            newest = newest_number_in(connection, name)
            if not waiting:
                raise ConfigurationError(
                    f"nothing waits for a version of task {name!r}: all that came is in version {newest}; ask devices"
                    f" for more with: broker-coordinator tasks invite {name}"
                )
            change_task(connection, name, {"wanted_version": newest + 1})
            return newest + 1, waiting

    def roll_back(self, name: str, number: int, step: float | None = None) -> Version:
        """Make a new version with the weights and the optimiser's state of version `number`; versions only count up.

        Updates that wait go into the version after it: they are receipted, so they count. `step`, if given, is that of
        the versions after it (`ServerState`).

        Raises:
            ConfigurationError: there is no such task or version, its weights are dropped, it is of another bundle, or
                it is the newest.
        """
        with writing(self._engine) as connection:
            first = served_task(connection, name).first_version
            newest = newest_number_in(connection, name)
            of_task = select(versions).where(versions.c.task == name)
            row = connection.execute(of_task.where(versions.c.number == number)).first()
            if row is None or row.weights is None or number == newest or number < first:
                why = _why_not_back(number, newest, first)
                raise ConfigurationError(
                    f"version {number} of task {name!r} {why}; see which are kept with: broker-coordinator tasks show"
                )
            last = connection.execute(of_task.where(versions.c.number == newest)).one()
            restored = Version(
                name,
                newest + 1,
                row.weights,
                row.weights_hash,
                row.moments,
                row.unrounded,
                restored=number,
                buffer_size=last.buffer_size,
                step=last.step if step is None else step,
                clip=last.clip,
                tempers_since=last.tempers_since,
                tempers_until=last.tempers_until,
                tempers_not_until=last.tempers_not_until,
            )
            insert_version(connection, restored)
            count_up(connection, TASKS)
            return restored

    def add_without(self, version: Version, departure: Departure) -> None:
        """Add a version that is a replay without a device's updates, as the next one of its task.

        Raises:
            TasksChangedError: another version was made meanwhile; nothing was committed.
        """
        with writing(self._engine) as connection:
            if newest_number_in(connection, version.task) != departure.version:
                raise TasksChangedError
            insert_version(connection, following(connection, version))
            insert_departure(connection, version.task, departure)
            count_up(connection, TASKS)

    def add_evaluation(self, name: str, found: Evaluation) -> None:
        """Store how good a version is, in place of what was stored before."""
        row = {"samples": found.samples, "loss": found.loss, "accuracy": found.accuracy}
        same = (evaluations.c.task == name, evaluations.c.version == found.version)
        with writing(self._engine) as connection:
            if not connection.execute(update(evaluations).where(*same).values(row)).rowcount:
                connection.execute(insert(evaluations).values(task=name, version=found.version, **row))


def _why_not_back(number: int, newest: int, first: int) -> str:
    if number == newest:
        return "is the newest already"
    return (
        f"is of another bundle, which version {first} ended"
        if number < first
        else ("is not in the journal, or its weights are dropped")
    )
