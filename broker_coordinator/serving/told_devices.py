"""The devices of which helpers have said what their samples activate, and those that no finding of clusters knows."""

from collections.abc import Mapping

import numpy as np

from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.aggregation.clusters.clustering import MOST_DEVICES, Activation, unusable
from broker_coordinator.consumers.activation_summary import SummaryFacts
from broker_coordinator.storage.cluster_registry import ClusterRegistry, Finding
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.helper_registry import HelperRegistry
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.told_activations import told_activations


def told_devices(journal: JournalReader, task: str) -> dict[str, SummaryFacts]:
    """By approved device, the newest that an allowed helper said; of at most as many as are looked at.

    Raises:
        JournalUnavailableError: the database failed.
    """
    helpers = set(HelperRegistry(journal.engine).allowed())
    registered = DeviceRegistry(journal.engine).devices()
    devices = {each.name for each in registered if each.state is DeviceState.APPROVED} - helpers
    return told_activations(journal, task, helpers=helpers, devices=devices, most=MOST_DEVICES)


def activations(told: Mapping[str, SummaryFacts]) -> dict[str, Activation]:
    """By device, what was said of it, as float32 [V]: what is too large for that is infinite."""
    with np.errstate(over="ignore"):
        return {name: np.array(facts.mean, np.float64).astype(np.float32) for name, facts in told.items()}


def newcomers(told: Mapping[str, SummaryFacts], last: Finding) -> set[str]:
    """Of which devices something was said that the last finding did not know, or of which it could use nothing."""
    usable = told.keys() - unusable(activations(told)).keys()
    return (told.keys() - last.samples.keys()) | (usable & last.left_out.keys())


def has_newcomers(journal: JournalReader, task: str) -> bool:
    """Whether there are newcomers since the last finding. Where that has looked at as many as it
    may, those that it left out are no newcomers.

    Raises:
        JournalUnavailableError: the database failed.
    """
    last = ClusterRegistry(journal.engine).finding(task)
    if last is None or len(last.samples) >= MOST_DEVICES:
        return False
    return bool(newcomers(told_devices(journal, task), last))


def is_undivided(journal: JournalReader, task: str) -> bool:
    """Whether the last finding has found no more than one cluster.

    Raises:
        JournalUnavailableError: the database failed.
    """
    last = ClusterRegistry(journal.engine).finding(task)
    return last is not None and last.clusters <= 1
