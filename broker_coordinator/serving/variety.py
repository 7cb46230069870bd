"""How alike the pictures are that a version of a generator draws, beside those of earlier versions."""

from typing import Final

from broker_coordinator.aggregation.narrowing import Narrowing, compared_with, narrowing
from broker_coordinator.storage.cluster_registry import ClusterRegistry
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.task_registry import TaskRegistry
from bundle_runtime.bundle import Bundle
from bundle_runtime.drawing import Drawer
from bundle_runtime.variety import variety
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.codec import read_model
from fleet_protocol.errors import ConfigurationError

PICTURES_OF_A_CLASS: Final = 16
SEED: Final = 0
"""The same latent numbers for every version."""


def narrowings(journal: JournalReader, task: str, version: int | None = None) -> tuple[int, list[Narrowing]]:
    """The number of a version, None for the newest, and how its pictures compare: for each cluster that has devices, or
    for those in none.

    Raises:
        ConfigurationError: the task draws nothing, or the version is not there, or draws what is no number.
        JournalUnavailableError: the database failed.
    """
    bundle = TaskRegistry(journal.engine).bundle(task)
    number = journal.newest_number(task) if version is None else version
    kept = journal.kept_numbers(task)
    if number not in kept:
        raise ConfigurationError(
            f"version {number} of task {task!r} is not in the journal, or its weights are dropped; see which are kept"
            " with: broker-coordinator tasks show"
        )
    lineage = journal.history(task).spans(number)
    own = [each for each in kept if any(first <= each <= last for first, last in lineage)]
    numbers = compared_with(own, number)
    return number, [
        narrowing(cluster, number, {each: _variety(journal, bundle, each, cluster) for each in numbers})
        for cluster in _clusters(journal, bundle)
    ]


def _clusters(journal: JournalReader, bundle: Bundle) -> list[int]:
    """Those that have devices; none, where no device is in one."""
    plan, assigned = bundle.description.clusters, ClusterRegistry(journal.engine).assigned()
    given = assigned.get(bundle.description.task, {}).values() if plan else ()
    return sorted({plan.cluster(each) for each in given} if plan and given else {NO_CLUSTER})


def _variety(journal: JournalReader, bundle: Bundle, number: int, cluster: int) -> float:
    """Of the model that devices of a cluster train from."""
    found = journal.version(bundle.description.task, number)
    if found is None:
        raise ConfigurationError(f"version {number} was dropped meanwhile; measure the newest one")
    drawer = Drawer(bundle, read_model(found.weights, bundle.description, cluster))
    return variety(drawer, PICTURES_OF_A_CLASS, SEED)
