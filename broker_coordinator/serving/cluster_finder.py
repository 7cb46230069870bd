"""Finds the clusters of a task's devices behind its versions, in a child process, one at a time."""

import logging
from collections.abc import Mapping
from pathlib import Path

from broker_coordinator.aggregation.clusters import PLAIN_FEDERATIONS
from broker_coordinator.serving.behind_versions import BehindVersions, VersionVerb
from broker_coordinator.serving.told_devices import has_newcomers, is_undivided
from broker_coordinator.storage.cluster_registry import ClusterRegistry
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.log_lines import log_line
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.errors import ConfigurationError

logger = logging.getLogger(__name__)

LOGGED = ("task", "version", "devices", "clusters")


class ClusterFinder(BehindVersions):
    """Runs `clusters find` behind versions of tasks whose description says by what: of those that are due,
    and with `--newcomers` of those behind which there are devices that the last finding did not know.
    """

    def __init__(self, configuration: Path, journal: JournalReader) -> None:
        tasks, clusters = TaskRegistry(journal.engine), ClusterRegistry(journal.engine)

        def is_everybody_due(task: str, number: int) -> bool:
            plan, first = tasks.bundle(task).description.clusters, tasks.task(task).first_version
            last = clusters.finding(task)
            return is_look_due(plan, number - first, None if last is None else last.version - first)

        def words(task: str, number: int) -> list[str]:
            try:
                everybody = is_everybody_due(task, number)
            except (ConfigurationError, JournalUnavailableError):
                everybody = False
            return ["find", task] if everybody else ["find", task, "--newcomers"]

        def is_due(task: str, number: int) -> bool:
            try:
                if is_everybody_due(task, number):
                    return True
                plan, federations = tasks.bundle(task).description.clusters, number - tasks.task(task).first_version
                if plan is None or not plan.activations or not may_be_found_behind(plan, federations):
                    return False
                return has_newcomers(journal, task) or (is_again_due(federations) and is_undivided(journal, task))
            except (ConfigurationError, JournalUnavailableError):  # removed meanwhile, say; or the next version's turn
                return False

        verb = VersionVerb(
            "clusters",
            words,
            is_due,
            _say_found,
            _say_failed,
        )
        super().__init__(configuration, verb)


def may_be_found_behind(plan: ClusterPlan | None, federations: int) -> bool:
    """Whether clusters are found at all when so many versions were made since the bundle's own; the first are plain."""
    return plan is not None and plan.by_coordinator and federations >= PLAIN_FEDERATIONS


def is_again_due(federations: int) -> bool:
    """Whether devices that were of one kind so far are looked at again: less and less often, as they may stay so."""
    return federations > PLAIN_FEDERATIONS and (federations - PLAIN_FEDERATIONS).bit_count() == 1


def is_look_due(plan: ClusterPlan | None, federations: int, looked_behind: int | None) -> bool:
    """Whether everybody is looked at then, whoever has come since: as soon as it is due, and until it was done.
    `looked_behind` is how many versions there were when everybody was looked at last, None for never.
    """
    if plan is None or not may_be_found_behind(plan, federations):
        return False
    due = federations - (federations - PLAIN_FEDERATIONS) % plan.every
    return looked_behind is None or looked_behind < due


def _say_found(found: Mapping[str, object]) -> None:
    logger.info(log_line("clusters_found", **{name: found[name] for name in LOGGED}))


def _say_failed(task: str, number: int, error: str) -> None:
    logger.error(log_line("clusters_not_found", task=task, version=number, error=error))
