"""Trains from a task's newest version, and publishes what comes of it as the next one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from broker_coordinator.aggregation.version import Version, version_of
from broker_coordinator.storage.given_versions import give_version
from broker_coordinator.storage.journal import Journal, TasksChangedError
from bundle_runtime.bundle import Bundle
from fleet_protocol.codec.sparse import FloatVector
from fleet_protocol.errors import ConfigurationError

MOST_TRIES: Final = 5
"""Where the fleet makes versions while this trains, it begins anew from the newest."""

Train = Callable[[FloatVector], FloatVector]


def publish_trained(journal: Journal, bundle: Bundle, train: Train, given: str) -> Version:
    """The next version of the bundle's task: what `train` makes of the weights of its newest. `given` says what it is.

    Raises:
        ConfigurationError: the task was removed or changed, or the fleet makes versions faster than this trains.
        JournalUnavailableError: the database failed; nothing was published.
    """
    task = bundle.description
    for _ in range(MOST_TRIES):
        newest = journal.newest_version(task.task)
        if newest is None:
            raise ConfigurationError(f"task {task.task!r} was removed meanwhile; nothing was published")
        state = newest.state(task.version.parameters, {})
        trained = replace(state, version=state.version + 1, weights=train(state.weights))
        version = replace(version_of(task, trained, bundle.grid()), given=given)
        try:
            give_version(journal.engine, version, bundle.hash)
        except TasksChangedError:
            continue
        return version
    raise ConfigurationError(
        f"{task.task}: each time that a model was trained, the fleet had made another version meanwhile; train fewer"
        " epochs, or pause the task: broker-coordinator tasks pause"
    )
