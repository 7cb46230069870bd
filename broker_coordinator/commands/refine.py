"""`broker-coordinator tasks refine`: rounds go on from a solved head."""

from contextlib import suppress

from broker_coordinator.aggregation.solved_heads import refined
from broker_coordinator.storage.journal import Journal, TasksChangedError
from broker_coordinator.storage.stored_tasks import StoredTask
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_protocol.errors import ConfigurationError


def refine(journal: Journal, task: str) -> StoredTask:
    """Serve a task from now on with updates in the place of feature statistics, from the head of its newest version on.

    A running coordinator may make versions meanwhile; then it is that of the last of them.

    Raises:
        ConfigurationError: there is no such task, it has no solved head, or no version of one yet.
    """
    registry = TaskRegistry(journal.engine)
    while True:
        with suppress(TasksChangedError):
            return _refine(journal, registry, task)


def _refine(journal: Journal, registry: TaskRegistry, task: str) -> StoredTask:
    bundle = registry.bundle(task)
    newest = journal.newest_version(task)
    if newest is None or (bundle.description.solved_head and newest.number == registry.task(task).first_version):
        raise ConfigurationError(
            f"task {task!r} has no solved head yet to go on from; where statistics wait, make a version of them with:"
            f" broker-coordinator tasks aggregate {task}"
        )
    made = refined(bundle, newest.weights)
    return registry.publish_refined(made, before=bundle.hash, newest=newest.number)
