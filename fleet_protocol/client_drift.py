"""Which settings go with what devices do against drift: `training.correction` and `training.adaptive_proximal`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fleet_protocol.errors import ConfigurationError

if TYPE_CHECKING:
    from fleet_protocol.task_description import TaskDescription

CORRECTED_OPTIMISERS = ("sgd", "momentum", "nesterov")
"""Those that move the weights by a multiple of the gradients, so that these can be read off the movement."""


def check_client_drift(task: "TaskDescription", name: str) -> None:
    """Check both settings on the rest of a task; `name` is what the user calls it.

    Raises:
        ConfigurationError: something else of the task would make them wrong, or leave them without effect.
    """
    training = task.training
    if training.correction != "off":
        _check_correction(task, name)
    if training.adaptive_proximal:
        _check_company(
            task, "training.adaptive_proximal", {"[split]": (task.split, "helpers do not know a device's own")}, name
        )


def _check_correction(task: "TaskDescription", name: str) -> None:
    training = task.training
    setting = f"training.correction {training.correction!r}"
    if training.optimiser not in CORRECTED_OPTIMISERS:
        raise ConfigurationError(
            f"{name}: {setting} reads gradients off how far the weights move, and optimiser {training.optimiser!r}"
            f" scales each entry by itself; write training.optimiser = {' or '.join(map(repr, CORRECTED_OPTIMISERS))},"
            " or leave training.correction out"
        )
    if training.has_proximal:
        raise ConfigurationError(
            f"{name}: {setting} would take the pull of training.proximal for a direction of the device's samples;"
            " leave one of correction, and proximal with adaptive_proximal, out"
        )
    others = {
        "[split]": (task.split, "a helper trains its blocks for many devices"),
        "[clusters]": (task.clusters, "a device may change its cluster, and has no direction in the new one"),
        "[personal]": (task.personal, "what is a device's own does not move with the versions"),
    }
    _check_company(task, setting, others, name)


def _check_company(task: "TaskDescription", setting: str, others: Mapping[str, tuple[object, str]], name: str) -> None:
    """Raise `ConfigurationError` for what the `setting` does not go with: `others`, and what neither goes with."""
    both: Mapping[str, tuple[object, str]] = {
        "[solved_head]": (task.solved_head, "no steps are made"),
        "[prompts]": (task.prompts, "no steps are made"),
        "[posterior]": (task.posterior, "a device's steps are those of its own posterior, which nothing else steers"),
        "[privacy.samples]": (task.sample_privacy, "what a round learns from the one before it is not counted"),
    }
    for table, (found, why) in {**others, **both}.items():
        if found is not None:
            raise ConfigurationError(f"{name}: {table} does not go with {setting}: {why}; leave one of them out")
    if task.versions_from != "update":
        raise ConfigurationError(
            f"{name}: {setting} needs versions that are made from updates, and these are made from"
            f" {task.versions_from}; leave it out"
        )
