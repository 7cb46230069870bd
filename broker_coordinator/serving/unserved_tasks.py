"""Tasks that can't be served here, such as one whose kind is not installed: each is said once, and the others go on."""

import logging
from collections.abc import Mapping

from broker_coordinator.serving.set_aside import reason_of
from fleet_host.log_lines import log_line

logger = logging.getLogger(__name__)


class UnservedTasks:
    """Remembers what was said."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def say(self, unserved: Mapping[str, Exception]) -> None:
        """Log why tasks are not served, each unless that was the reason the last time."""
        reasons = {task: reason_of(error) for task, error in unserved.items()}
        for task, reason in reasons.items():
            if self._said.get(task) != reason:
                logger.error(
                    log_line(
                        "task_not_served",
                        task=task,
                        error=reason,
                        remedy="start the edgeflock that its bundle is for, or restore the database",
                    )
                )
        self._said = reasons
