"""Runs the relay of split learning as a child process while a task has cuts; the coordinator never waits for it."""

import logging
from pathlib import Path
from typing import Final

from sqlalchemy import Engine

from broker_coordinator.commands.kept_child import SILENCE_SECONDS, KeptChild
from broker_coordinator.storage.change_counters import TASKS, read_change_counters
from broker_coordinator.storage.database import Database, JournalUnavailableError, open_database
from broker_coordinator.storage.task_registry import TaskRegistry
from fleet_host.log_lines import log_line
from fleet_protocol.errors import ConfigurationError

MODULE: Final = "session_relay.relay"
"""By its name: the coordinator imports nothing of it."""

logger = logging.getLogger(__name__)


class RelayChild(KeptChild):
    """The relay, while a task that is served has cuts."""

    def __init__(self, configuration: Path, database: Database, silence_seconds: float = SILENCE_SECONDS) -> None:
        self._database = database
        self._engine: Engine | None = None
        self._tasks_mark: int | None = None
        self._has_cuts = False
        super().__init__("relay", [MODULE, str(configuration), "--signs"], silence_seconds=silence_seconds)

    def is_needed(self) -> bool:
        """Whether a task that is served has cuts; as before where the database can't be read."""
        try:
            self._engine = self._engine or open_database(self._database, read_only=True)
            mark = read_change_counters(self._engine).get(TASKS, 0)
            if mark != self._tasks_mark:
                served = TaskRegistry(self._engine).served().readable
                self._has_cuts = any(bundle.description.split for _, bundle in served)
                self._tasks_mark = mark
        except (JournalUnavailableError, ConfigurationError):  # the link says so
            pass
        return self._has_cuts

    def stop(self) -> None:
        """End the child and the thread, and let go of the database."""
        super().stop()
        if self._engine is not None:
            self._engine.dispose()

    def log_started(self, pid: int) -> None:
        """A task has cuts."""
        logger.info(log_line("relay_started", pid=pid))

    def log_stuck(self, pid: int, silent_seconds: float) -> None:
        """It is started again."""
        logger.error(log_line("relay_stuck", pid=pid, silent_s=round(silent_seconds)))

    def log_ended(self, status: int | None) -> None:
        """It is started again."""
        remedy = "none if it comes back; else see the lines above: updates are taken in meanwhile, sessions are not"
        logger.error(log_line("relay_ended", status=status, remedy=remedy))
