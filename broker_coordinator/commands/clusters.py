"""`broker-coordinator clusters show | assign`: which devices of a task train which copy of its parameters."""

import argparse

from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.commands.output import add_noun, write_rows
from broker_coordinator.configuration import load_configuration
from broker_coordinator.storage.cluster_registry import ClusterRegistry, check_has
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.command_line import Verbs, name_of, whole_number
from fleet_protocol.cluster_plan import NO_CLUSTER
from fleet_protocol.limits import MAX_CLUSTERS

CLUSTER = whole_number(NO_CLUSTER, MAX_CLUSTERS)
SHOWN = ("device", "cluster", "state")


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
    for each in (show, assign):
        each.add_argument("task", type=name_of("task"), metavar="TASK", help="a task with [clusters]")
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
        if options.action == "assign":
            registry.assign(task, {options.name: options.cluster})
        rows = _rows(registry.assigned().get(task.task, {}), DeviceRegistry(journal.engine))
    write_rows(rows, SHOWN, as_json=options.json, when_empty="no device is known")


def _rows(assigned: dict[str, int], devices: DeviceRegistry) -> list[dict[str, object]]:
    """Every device that is approved or has a cluster."""
    states = {each.name: each.state.value for each in devices.devices() if each.state is not DeviceState.REVOKED}
    approved = {name for name, state in states.items() if state == DeviceState.APPROVED.value}
    return [
        {"device": name, "cluster": assigned.get(name, NO_CLUSTER), "state": states.get(name)}
        for name in sorted(approved | assigned.keys())
    ]
