"""Finds the clusters of a task's devices by what helpers said of them, and assigns them."""

from collections.abc import Callable, Mapping

import msgspec
import numpy as np

from broker_coordinator.aggregation.clusters import (
    Activation,
    find_clusters,
    nearest_clusters,
    numbered,
    unusable,
)
from broker_coordinator.consumers.activation_summary import SummaryFacts
from broker_coordinator.serving.told_devices import told_devices
from broker_coordinator.storage.cluster_registry import ByDevice, ClusterRegistry, Finding, Found, check_has
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.told_activations import drop_unread
from fleet_protocol.cluster_plan import NO_CLUSTER, ClusterPlan
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
    found = find_clusters(_activations(told))
    finding = Finding(version, _samples(told), found.count, dict(found.left_out))

    def numbering(now: ByDevice) -> Found:
        return numbered(found.of_device, now, plan.most), finding

    return _assigned(journal, task, numbering)


def place_newcomers(journal: JournalReader, task: TaskDescription) -> Found:
    """Assign those alone that the last finding did not know, each to the cluster that it is nearest to; one that an
    operator has put into a cluster stays there. Where nothing was found yet, only one cluster was, or as many have come
    since as it was found by, clusters are found anew.

    Raises:
        ConfigurationError: the task finds no clusters by activations.
        JournalUnavailableError: the database failed; nothing is assigned.
    """
    plan = _plan(task)
    last = ClusterRegistry(journal.engine).finding(task.task)
    told = told_devices(journal, task.task)
    activations = _activations(told)
    left_out = unusable(activations)
    known = {name: each for name, each in activations.items() if last and name in last.samples.keys() - left_out}
    newcomers = {name: facts for name, facts in told.items() if last and name not in last.samples}
    if last is None or not known or not last.bears_newcomers(len(newcomers)):
        return find_and_assign(journal, task)
    version = journal.newest_number(task.task)
    finding = msgspec.structs.replace(
        last,
        samples=last.samples | _samples(newcomers),
        left_out=last.left_out | {name: why for name, why in left_out.items() if name in newcomers},
        placed=last.placed | dict.fromkeys(newcomers, version),
    )

    def numbering(now: ByDevice) -> Found:
        unplaced = {name: activations[name] for name in newcomers.keys() - now.keys() - left_out.keys()}
        there = {name: cluster for name, cluster in now.items() if cluster <= plan.most}
        return nearest_clusters(unplaced, known, dict.fromkeys(known, NO_CLUSTER) | there), finding

    return _assigned(journal, task, numbering)


def _assigned(journal: JournalReader, task: TaskDescription, numbering: Callable[[ByDevice], Found]) -> Found:
    assigned = ClusterRegistry(journal.engine).assign_found(task, numbering)
    drop_unread(journal.engine, task.task)
    return assigned


def _activations(told: Mapping[str, SummaryFacts]) -> dict[str, Activation]:
    return {name: np.array(facts.mean, np.float32) for name, facts in told.items()}


def _samples(told: Mapping[str, SummaryFacts]) -> dict[str, int]:
    return {name: told[name].rows for name in sorted(told)}


def _plan(task: TaskDescription) -> ClusterPlan:
    check_has(task)
    if task.clusters is None or not task.clusters.activations:
        raise ConfigurationError(
            f"task {task.task!r} does not say by which activations clusters are found; export it with"
            " clusters.activations in task.toml and publish that, or assign devices by hand:"
            " broker-coordinator clusters assign"
        )
    return task.clusters
