"""Compares the versions that a journal holds with those that its updates give when they are applied anew."""

import numpy as np

from broker_coordinator.aggregation.version import version_of
from broker_coordinator.serving.replay import replayed
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.task_registry import TaskRegistry


def versions_replayed(journal: JournalReader, task: str, start: int = 0) -> int:
    """How many kept versions after `start` were compared, all of which are the same to the last bit.

    Raises:
        AssertionError: one is not.
        ConfigurationError: what a replay needs is not kept.
    """
    bundle = TaskRegistry(journal.engine).bundle(task)
    description = bundle.description
    states = dict(replayed(journal, description, start))
    compared = 0
    for version in journal.versions(task, after=start):
        stored, made = version.state(description.parameters, {}), states[version.number]
        assert np.array_equal(stored.weights, made.weights), f"version {version.number}: other weights"
        assert np.array_equal(stored.moments, made.moments), f"version {version.number}: other moments"
        if version.restored is None:
            assert version == version_of(description, made, bundle.grid())
        compared += 1
    return compared
