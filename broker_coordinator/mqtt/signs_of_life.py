"""Tells systemd that the coordinator goes on: its loop turns, and what has come from the broker is committed.

A broker or a database that is not there is waited for, which a restart would not shorten.
"""

import logging
from collections.abc import Callable

from fleet_host.log_lines import log_line
from fleet_host.service_manager import ServiceManager

logger = logging.getLogger(__name__)


class SignsOfLife:
    """Costs a turn of the loop one comparison."""

    def __init__(self, manager: ServiceManager) -> None:
        self._manager = manager
        self._due = 0.0
        self._said_stuck = False

    def turned(self, now: float, waiting_since: float | None, words: Callable[[], str]) -> None:
        """The loop has turned, at `now` in seconds; messages have waited since then without a commit, None: none do.

        `words` say how the coordinator is doing.
        """
        if self._manager.sign_seconds is None or self._manager.watchdog_seconds is None or now < self._due:
            return
        self._due = now + self._manager.sign_seconds
        self._manager.status(words())
        if waiting_since is None or now - waiting_since < self._manager.watchdog_seconds:
            self._manager.alive()
            self._said_stuck = False
        elif not self._said_stuck:
            self._said_stuck = True
            waited = f"{now - waiting_since:.0f}"
            remedy = "none: systemd starts the coordinator again, and the broker delivers them again"
            logger.error(log_line("intake_stuck", waited_s=waited, remedy=remedy))
