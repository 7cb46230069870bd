"""Says in the log what operators have done to tasks while the coordinator runs."""

import logging
from collections.abc import Mapping

from broker_coordinator.storage.task_registry import StoredTask
from fleet_host.log_lines import log_line

logger = logging.getLogger(__name__)


def say_changes(before: Mapping[str, StoredTask], now: Mapping[str, StoredTask]) -> None:
    """One line for each task that is published, renewed, removed, paused or resumed; both are by name."""
    for name, task in now.items():
        known = before.get(name)
        if task.removed:
            if known is not None and not known.removed:
                logger.info(log_line("task_removed", task=name, generation=task.generation))
        elif known is None or known.removed or known.bundle != task.bundle:
            logger.info(
                log_line(
                    "task_published",
                    task=name,
                    bundle=task.bundle[:16],
                    generation=task.generation,
                    version=task.first_version,
                )
            )
        elif known.generation != task.generation:
            logger.info(log_line("task_renewed", task=name, generation=task.generation))
        elif known.paused != task.paused:
            logger.info(log_line("task_paused", task=name, paused=task.paused))
