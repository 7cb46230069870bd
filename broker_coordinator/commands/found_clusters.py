"""Finds the clusters of a task's devices by what helpers said of them, or by their updates, and assigns them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import msgspec

from broker_coordinator.aggregation.clusters import (
    clusters_by_direction,
    find_clusters,
    heard_from,
    nearest_clusters,
    numbered,
    unusable,
)
from broker_coordinator.consumers.activation_summary import SummaryFacts
from broker_coordinator.serving.told_devices import activations, newcomers, told_devices
from broker_coordinator.storage.cluster_registry import ClusterRegistry, Finding, Found, Stand, check_has
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.pulls import told_directions
from broker_coordinator.storage.told_activations import drop_unread
from fleet_protocol.cluster_plan import NO_CLUSTER, ClusterPlan
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.task_description import TaskDescription

FoundOrNone = TypeVar("FoundOrNone", bound=Found | None)


def find_and_assign(journal: JournalReader, task: TaskDescription) -> Found:
    """Assign those approved devices of which a helper has said something, or whose updates tell them apart; the others
    stay where they are. The same journal and clusters give the same clusters.

    Raises:
        ConfigurationError: nothing finds the task's clusters, or its devices choose.
        JournalUnavailableError: the database failed; nothing is assigned.
    """
    plan = _plan(task)
    if plan.found_by == "directions":
        return _assigned(journal, task, partial(_found_by_directions, journal, task, plan))
    assigned = _assigned(journal, task, partial(_found_by_activations, journal, task, plan))
    drop_unread(journal.engine, task.task)
    return assigned


def place_newcomers(journal: JournalReader, task: TaskDescription) -> Found:
    """Assign those alone that the last finding did not know, each to the cluster that it is nearest to; one that an
    operator has put into a cluster stays there. Where nothing was found yet, only one cluster was, or as many have come
    since as it was found by, clusters are found anew. By updates, every look moves those alone that are told apart.

    Raises:
        ConfigurationError: nothing finds the task's clusters, or its devices choose.
        JournalUnavailableError: the database failed; nothing is assigned.
    """
    plan = _plan(task)
    if plan.found_by == "directions":
        return _assigned(journal, task, partial(_found_by_directions, journal, task, plan))
    placed = _assigned(journal, task, partial(_placed, journal, task, plan))
    if placed is None:
        return find_and_assign(journal, task)
    drop_unread(journal.engine, task.task)
    return placed


def _assigned(journal: JournalReader, task: TaskDescription, compare: Callable[[Stand], FoundOrNone]) -> FoundOrNone:
    """Assign what `compare` finds, and return it. Hundreds of devices are compared for half a minute, so that is done
    outside of the transaction that assigns them; and again where an operator has changed something meanwhile: has moved
    a device, say, or revoked one.
    """
    registry = ClusterRegistry(journal.engine)
    while True:
        stand = registry.stand(task.task)
        found = compare(stand)
        if found is None or registry.assign_found(task, stand, *found):
            return found


def _found_by_activations(journal: JournalReader, task: TaskDescription, plan: ClusterPlan, stand: Stand) -> Found:
    version = journal.newest_number(task.task)
    told = told_devices(journal, task.task)
    found = find_clusters(activations(told))
    finding = Finding(version, _samples(told), found.count, dict(found.left_out))
    return numbered(found.of_device, stand.clusters, plan.most), finding


def _found_by_directions(journal: JournalReader, task: TaskDescription, plan: ClusterPlan, stand: Stand) -> Found:
    pulls = told_directions(journal.engine, task.task)
    version = journal.newest_number(task.task)
    there = {name: plan.cluster(cluster) for name, cluster in stand.clusters.items()}
    known = stand.finding.kinds if stand.finding else {}
    heard = heard_from(version, len(pulls), task.aggregation)
    kinds = clusters_by_direction(pulls, there, known, plan.most, heard=heard)
    moved = dict(kinds.moved)
    count = len(set((there | moved).values()) - {NO_CLUSTER})
    updates = {name: pulls[name].updates for name in sorted(pulls)}
    directions = {cluster: dict(kind) for cluster, kind in kinds.directions.items()}
    return moved, Finding(version, updates, max(1, count), kinds=directions)


def _placed(journal: JournalReader, task: TaskDescription, plan: ClusterPlan, stand: Stand) -> Found | None:
    """Where the newcomers belong, and the finding with them; None where clusters are to be found anew."""
    now, last = stand.clusters, stand.finding
    if last is None:
        return None
    version = journal.newest_number(task.task)
    told = told_devices(journal, task.task)
    values = activations(told)
    left_out = unusable(values)
    new = newcomers(told, last)
    there = {name: cluster for name, cluster in now.items() if cluster <= plan.most}
    known = last.samples.keys() & told.keys() - left_out.keys() - new
    if last.clusters <= plan.most:  # none was one too many: who is in none, an operator has taken out
        known &= there.keys()
    if not known or not last.bears_newcomers(len(new)):
        return None
    unplaced = {name: values[name] for name in new - there.keys() - left_out.keys()}
    cluster_of = {name: there.get(name, NO_CLUSTER) for name in known}
    finding = msgspec.structs.replace(
        last,
        samples=last.samples | {name: told[name].rows for name in sorted(new)},
        left_out={name: why for name, why in (last.left_out | left_out).items() if name in left_out or name not in new},
        placed=last.placed | dict.fromkeys(sorted(new), version),
    )
    return nearest_clusters(unplaced, {name: values[name] for name in known}, cluster_of), finding


def _samples(told: Mapping[str, SummaryFacts]) -> dict[str, int]:
    return {name: told[name].rows for name in sorted(told)}


def _plan(task: TaskDescription) -> ClusterPlan:
    check_has(task)
    if task.clusters is None or not task.clusters.by_coordinator:
        raise ConfigurationError(
            f"task {task.task!r} does not say by what the coordinator finds clusters; export it with"
            ' clusters.activations, or clusters.found_by = "directions", in task.toml and publish that, or assign'
            " devices by hand: broker-coordinator clusters assign"
        )
    return task.clusters
