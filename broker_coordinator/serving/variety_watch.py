"""Has a child process measure what versions of generators draw, and says where pictures have become alike."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from broker_coordinator.serving.behind_versions import BehindVersions, VersionVerb
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.log_lines import log_line
from fleet_protocol.errors import ConfigurationError

VERSIONS_BETWEEN: Final = 4
"""Pictures do not become alike from one version to the next."""
REMEDY: Final = "roll back to `greatest_in`, or lower learning_rate and publish the corrected bundle"

logger = logging.getLogger(__name__)


class ClusterTold(msgspec.Struct, frozen=True):
    """What `tasks variety` says of a cluster."""

    cluster: int
    variety: float
    greatest: float
    greatest_in: int
    narrow: bool


class VarietyTold(msgspec.Struct, frozen=True):
    """What it says of a version."""

    task: str
    version: int
    clusters: tuple[ClusterTold, ...]


class VarietyWatch(BehindVersions):
    """Runs `tasks variety` behind each fourth version of tasks that draw."""

    def __init__(self, configuration: Path, registry: TaskRegistry, metrics: Metrics) -> None:
        def is_due(task: str, number: int) -> bool:
            try:
                return not number % VERSIONS_BETWEEN and registry.bundle(task).description.drawing is not None
            except (ConfigurationError, JournalUnavailableError):  # removed meanwhile, say; or the next version's turn
                return False

        verb = VersionVerb(
            "tasks",
            lambda task, number: ["variety", task, "--version", str(number)],
            is_due,
            lambda found: _say(found, metrics),
            _say_failed,
        )
        super().__init__(configuration, verb)


def _say(found: Mapping[str, object], metrics: Metrics) -> None:
    told = msgspec.convert(found, VarietyTold)
    for each in told.clusters:
        metrics.show_variety(told.task, each.cluster, each.variety)
        values = {"task": told.task, "version": told.version, "cluster": each.cluster, "variety": each.variety}
        if each.narrow:
            more = {"greatest": each.greatest, "greatest_in": each.greatest_in, "remedy": REMEDY}
            logger.warning(log_line("pictures_narrowed", **values, **more))
        else:
            logger.info(log_line("variety_measured", **values))


def _say_failed(task: str, number: int, error: str) -> None:
    logger.error(log_line("variety_not_measured", task=task, version=number, error=error))
