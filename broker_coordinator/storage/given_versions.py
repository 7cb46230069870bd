"""Versions whose weights come from elsewhere than from updates: trained beside the coordinator on synthetic data.

They stand among the others, in the same generation: updates made from earlier versions still count, a rollback can go
back before one, and a replay takes its weights as they are stored (docs/decisions/given-versions.md).
"""

from sqlalchemy import Engine, select

from broker_coordinator.aggregation.version import Version
from broker_coordinator.storage.change_counters import TASKS, count_up
from broker_coordinator.storage.database import writing
from broker_coordinator.storage.journal import TasksChangedError, following, insert_version
from broker_coordinator.storage.schema import tasks
from broker_coordinator.storage.task_conditions import newest_number_in
from fleet_protocol.errors import ConfigurationError


def give_version(engine: Engine, version: Version, bundle: str) -> None:
    """Add a version as the next one of its task, if that still has the bundle with this hash; `given` says what it is.
    A running coordinator notices.

    Raises:
        TasksChangedError: another version was made meanwhile; nothing was committed.
        ConfigurationError: the task is removed, or has another bundle.
        JournalUnavailableError: the database failed.
    """
    with writing(engine) as connection:
        served = select(tasks.c.bundle).where(tasks.c.name == version.task, tasks.c.removed.is_(False))
        if connection.scalar(served) != bundle:
            raise ConfigurationError(
                f"task {version.task!r} was removed or published with another bundle meanwhile; nothing was published"
            )
        if newest_number_in(connection, version.task) != version.number - 1:
            raise TasksChangedError
        insert_version(connection, following(connection, version))
        count_up(connection, TASKS)
