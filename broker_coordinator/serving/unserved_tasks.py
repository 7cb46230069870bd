"""Tasks that can't be served here, such as one whose kind is not installed: each is said once, and the others go on."""

import logging

from broker_coordinator.serving.set_aside import reason_of
from fleet_host.log_lines import log_line

logger = logging.getLogger(__name__)


class UnservedTasks:
    """Remembers what was said."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def say(self, task: str, error: Exception) -> None:
        """Log why a task is not served, unless that was the reason the last time."""
        reason = reason_of(error)
        if self._said.get(task) == reason:
            return
        self._said[task] = reason
        logger.error(
            log_line(
                "task_not_served",
                task=task,
                error=reason,
                remedy="start the edgeflock that its bundle is for, or restore the database",
            )
        )
