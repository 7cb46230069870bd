"""`broker-coordinator clusters show | assign | find`: which devices of a task train which copy of its parameters."""

import argparse
import sys

from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.aggregation.diagnostics.empty_clusters import empty_clusters
from broker_coordinator.commands.found_clusters import find_and_assign, place_newcomers
from broker_coordinator.commands.output import add_noun, write_fields, write_rows
from broker_coordinator.configuration import load_configuration
from broker_coordinator.storage.chosen_clusters import chosen_clusters
from broker_coordinator.storage.cluster_registry import ClusterRegistry, Finding, check_has
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.command_line import Verbs, name_of, whole_number
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_CLUSTERS
from fleet_protocol.task_description import TaskDescription

CLUSTER = whole_number(NO_CLUSTER, MAX_CLUSTERS)
SHOWN = ("device", "cluster", "state", "found")


def add_cluster_option(verb: argparse.ArgumentParser) -> None:
    """`--cluster`, of a verb about versions of a task."""
    verb.add_argument(
        "--cluster",
        type=CLUSTER,
        default=NO_CLUSTER,
        metavar="N",
        help="as this cluster's devices have it, not those of none",
    )


def add_parser(nouns: Verbs, *parents: argparse.ArgumentParser) -> None:
    """The noun and its verbs."""
    verb = add_noun(nouns, "clusters", "Show or change which devices train together.", *parents)
    show = verb("show", "List the devices of a task with the cluster of each.")
    assign = verb("assign", "Put a device into a cluster: from its next receipt on it trains that one's copy.")
    find = verb(
        "find", "Find clusters as a coordinator does, by what helpers saw of devices or by updates, and assign."
    )
    for each in (show, assign, find):
        each.add_argument("task", type=name_of("task"), metavar="TASK", help="a task with [clusters]")
    find.add_argument(
        "--newcomers",
        action="store_true",
        help="place those alone that have come since into the clusters that are there, unless these are too many",
    )
    assign.add_argument("name", type=name_of("device"), metavar="DEVICE", help="the device's name")
    assign.add_argument("cluster", type=CLUSTER, metavar="CLUSTER", help="1 to clusters.most of the task; 0 for none")


def run(options: argparse.Namespace) -> None:
    """Run the verb; a running coordinator notices at the next message."""
    configuration = load_configuration(options.config)
    opened = Journal.open_to_look if options.action == "show" else Journal.open
    with opened(configuration.journal()) as journal:
        task = TaskRegistry(journal.engine).bundle(options.task).description
        registry = ClusterRegistry(journal.engine)
        check_has(task)
        if options.action == "find":
            _find(journal, task, newcomers=options.newcomers, as_json=options.json)
            return
        if options.action == "assign":
            _check_assigned_by_hand(task)
            registry.assign(task, {options.name: options.cluster})
        cluster_of = clusters_now(journal, task)
        counted = "updates" if task.clusters and task.clusters.found_by else "samples"
        rows = _rows(cluster_of, DeviceRegistry(journal.engine), registry.finding(task.task), counted)
    write_rows(rows, SHOWN, as_json=options.json, when_empty="no device is known")
    if rows and task.clusters is not None and not options.json:
        sys.stdout.writelines(f"{words}\n" for words in empty_clusters(task.clusters, cluster_of))


def _find(journal: Journal, task: TaskDescription, *, newcomers: bool, as_json: bool) -> None:
    assigned, finding = (place_newcomers if newcomers else find_and_assign)(journal, task)
    row = {
        "task": task.task,
        "version": finding.version,
        "devices": len(finding.samples),
        "clusters": finding.clusters,
        "assigned": [{"device": name, "cluster": assigned[name]} for name in sorted(assigned)],
        "left_out": [{"device": name, "reason": reason} for name, reason in sorted(finding.left_out.items())],
    }
    write_fields(row, as_json=as_json)


def clusters_now(journal: JournalReader, task: TaskDescription) -> dict[str, int]:
    """The cluster of each device that is in one, whoever says it; of devices that choose, that of the last update."""
    if task.clusters is not None and task.clusters.by_devices:
        return chosen_clusters(journal.engine, task.task)
    return ClusterRegistry(journal.engine).assigned().get(task.task, {})


def _check_assigned_by_hand(task: TaskDescription) -> None:
    if task.clusters is not None and task.clusters.by_devices:
        raise ConfigurationError(
            f"devices of task {task.task!r} choose their cluster themselves (clusters.found_by = 'devices'); leave that"
            " out of task.toml and publish again to assign them by hand"
        )


def _rows(
    cluster_of: dict[str, int], devices: DeviceRegistry, finding: Finding | None, counted: str
) -> list[dict[str, object]]:
    """Every device that is approved or has a cluster; a finding is by so many of what is `counted`."""
    states = {each.name: each.state.value for each in devices.devices() if each.state is not DeviceState.REVOKED}
    approved = {name for name, state in states.items() if state == DeviceState.APPROVED.value}
    return [
        {
            "device": name,
            "cluster": cluster_of.get(name, NO_CLUSTER),
            "state": states.get(name),
            "found": _how(name, finding, counted),
        }
        for name in sorted(approved | cluster_of.keys())
    ]


def _how(device: str, finding: Finding | None, counted: str) -> str:
    """In words, what the last finding made of a device; empty where that did not know it."""
    if finding is None or device not in finding.samples:
        return ""
    by = f"behind version {finding.placed.get(device, finding.version)}, by {finding.samples[device]} {counted}"
    return f"{by}: {why}" if (why := finding.left_out.get(device)) else by
