"""Evaluates every n-th version in a child process, one at a time."""

from collections.abc import Mapping
from pathlib import Path

from broker_coordinator.serving.behind_versions import LONGEST_SECONDS, BehindVersions, VersionVerb

LOGGED = ("task", "version", "samples", "loss", "accuracy", "heads")
"""`heads` only where there are several."""


class Evaluator(BehindVersions):
    """Runs `tasks evaluate` for versions that are due; `every` says how often, by task."""

    def __init__(self, configuration: Path, every: Mapping[str, int], longest_seconds: float = LONGEST_SECONDS) -> None:
        verb = VersionVerb(
            "tasks",
            lambda task, number: ["evaluate", task, "--version", str(number)],
            lambda task, number: task in every and number % every[task] == 0,
            done="version_evaluated",
            logged=LOGGED,
            failed="evaluation_failed",
        )
        super().__init__(configuration, verb, longest_seconds)
