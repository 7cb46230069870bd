"""Finds the clusters of a task's devices by what helpers said of them, and assigns them."""

import numpy as np

from broker_coordinator.aggregation.clusters import find_clusters, numbered
from broker_coordinator.serving.told_devices import told_devices
from broker_coordinator.storage.cluster_registry import ByDevice, ClusterRegistry, Finding, Found, check_has
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.told_activations import drop_unread
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription


def find_and_assign(journal: JournalReader, task: TaskDescription) -> Found:
    """Assign those approved devices of which a helper has said something; the others stay where they are. The same
    journal and clusters give the same clusters.

    Raises:
        ConfigurationError: the task finds no clusters by activations.
        JournalUnavailableError: the database failed; nothing is assigned.
    """
    plan = _plan(task)
    version = journal.newest_number(task.task)
    told = told_devices(journal, task.task)
    found = find_clusters({name: np.array(facts.mean, np.float32) for name, facts in told.items()})
    samples = {name: told[name].rows for name in sorted(told)}
    finding = Finding(version, samples, found.count, dict(found.left_out))

    def numbering(now: ByDevice) -> Found:
        return numbered(found.of_device, now, plan.most), finding

    assigned = ClusterRegistry(journal.engine).assign_found(task, numbering)
    drop_unread(journal.engine, task.task)
    return assigned


def _plan(task: TaskDescription) -> ClusterPlan:
    check_has(task)
    if task.clusters is None or not task.clusters.activations:
        raise ConfigurationError(
            f"task {task.task!r} does not say by which activations clusters are found; export it with"
            " clusters.activations in task.toml and publish that, or assign devices by hand:"
            " broker-coordinator clusters assign"
        )
    return task.clusters
