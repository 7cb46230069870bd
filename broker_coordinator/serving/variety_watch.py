"""Has a child process measure what versions of generators draw, and says where pictures have become alike."""

import logging
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Engine

from broker_coordinator.serving.behind_versions import BehindVersions, VersionVerb
from broker_coordinator.serving.metrics import Metrics
from broker_coordinator.storage.database import JournalUnavailableError
from broker_coordinator.storage.task_registry import TaskRegistry
from broker_coordinator.storage.variety_registry import VarietyRegistry, VarietyTold
from fleet_host.log_lines import log_line
from fleet_protocol.errors import ConfigurationError

VERSIONS_BETWEEN: Final = 4
"""Pictures do not become alike from one version to the next."""
REMEDY: Final = "roll back to `greatest_in`, or lower learning_rate and publish the corrected bundle"

logger = logging.getLogger(__name__)


class VarietyWatch(BehindVersions):
    """Runs `tasks variety` behind each fourth version of tasks that draw, and keeps what it says."""

    def __init__(self, configuration: Path, engine: Engine, metrics: Metrics) -> None:
        registry, measured = TaskRegistry(engine), VarietyRegistry(engine)

        def is_due(task: str, number: int) -> bool:
            try:
                return not number % VERSIONS_BETWEEN and registry.bundle(task).description.drawing is not None
            except (ConfigurationError, JournalUnavailableError):  # removed meanwhile, say; or the next version's turn
                return False

        verb = VersionVerb(
            "tasks",
            lambda task, number: ["variety", task, "--version", str(number)],
            is_due,
            lambda found: _take(msgspec.convert(found, VarietyTold), measured, metrics),
            _say_failed,
        )
        super().__init__(configuration, verb)


def _take(told: VarietyTold, measured: VarietyRegistry, metrics: Metrics) -> None:
    _say(told, metrics)
    try:
        measured.keep(told)
    except JournalUnavailableError as error:
        remedy = "see what keeps the database from writing; the next measurement is kept again"
        logger.error(log_line("variety_not_kept", task=told.task, version=told.version, error=error, remedy=remedy))


def _say(told: VarietyTold, metrics: Metrics) -> None:
    metrics.show_variety(told.task, {each.cluster: each.variety for each in told.clusters})
    for each in told.clusters:
        values = {"task": told.task, "version": told.version, "cluster": each.cluster, "variety": each.variety}
        if each.narrow:
            more = {"greatest": each.greatest, "greatest_in": each.greatest_in, "remedy": REMEDY}
            logger.warning(log_line("pictures_narrowed", **values, **more))
        else:
            logger.info(log_line("variety_measured", **values))


def _say_failed(task: str, number: int, error: str) -> None:
    logger.error(log_line("variety_not_measured", task=task, version=number, error=error))
