"""Finds the clusters of a task's devices behind its versions, in a child process, one at a time."""

import logging
from collections.abc import Mapping
from pathlib import Path

from broker_coordinator.aggregation.clusters import PLAIN_FEDERATIONS
from broker_coordinator.serving.behind_versions import BehindVersions, VersionVerb
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.log_lines import log_line
from fleet_protocol.cluster_plan import ClusterPlan
from fleet_protocol.errors import ConfigurationError

logger = logging.getLogger(__name__)

LOGGED = ("task", "version", "devices", "clusters")


class ClusterFinder(BehindVersions):
    """Runs `clusters find` behind versions of tasks whose description says by which activations."""

    def __init__(self, configuration: Path, registry: TaskRegistry) -> None:
        def is_due(task: str, number: int) -> bool:
            try:
                stored, plan = registry.task(task), registry.bundle(task).description.clusters
            except (ConfigurationError, JournalUnavailableError):  # removed meanwhile, say; or the next version's turn
                return False
            return is_found_behind(plan, number - stored.first_version)

        verb = VersionVerb(
            "clusters",
            lambda task, _: ["find", task],
            is_due,
            _say_found,
            _say_failed,
        )
        super().__init__(configuration, verb)


def is_found_behind(plan: ClusterPlan | None, federations: int) -> bool:
    """Whether clusters are found when so many versions were made since the bundle's own; the first are plain."""
    if plan is None or not plan.activations or federations < PLAIN_FEDERATIONS:
        return False
    return (federations - PLAIN_FEDERATIONS) % plan.every == 0


def _say_found(found: Mapping[str, object]) -> None:
    logger.info(log_line("clusters_found", **{name: found[name] for name in LOGGED}))


def _say_failed(task: str, number: int, error: str) -> None:
    logger.error(log_line("clusters_not_found", task=task, version=number, error=error))
