"""Evaluates every n-th version in a child process, one at a time."""

import logging
from collections.abc import Mapping
from pathlib import Path

from broker_coordinator.serving.behind_versions import LONGEST_SECONDS, BehindVersions, VersionVerb
from fleet_host.log_lines import log_line

logger = logging.getLogger(__name__)

LOGGED = ("task", "version", "samples", "loss", "accuracy", "heads")
"""`heads` only where there are several."""


class Evaluator(BehindVersions):
    """Runs `tasks evaluate` for versions that are due; `every` says how often, by task."""

    def __init__(self, configuration: Path, every: Mapping[str, int], longest_seconds: float = LONGEST_SECONDS) -> None:
        verb = VersionVerb(
            "tasks",
            lambda task, number: ["evaluate", task, "--version", str(number)],
            lambda task, number: task in every and number % every[task] == 0,
            _say_evaluated,
            _say_failed,
        )
        super().__init__(configuration, verb, longest_seconds)


def _say_evaluated(found: Mapping[str, object]) -> None:
    logger.info(log_line("version_evaluated", **{name: found[name] for name in LOGGED if name in found}))


def _say_failed(task: str, number: int, error: str) -> None:
    logger.error(log_line("evaluation_failed", task=task, version=number, error=error))
