"""Reads the directory again and again beside the relay's loop: a slow or dead database holds up no frame."""

import logging
import threading
from typing import Final

from broker_coordinator.storage.database import JournalUnavailableError
from fleet_host.log_lines import log_line
from session_relay.relay.core.directory import Directory
from session_relay.relay.directory_source import DirectorySource

LOOK_SECONDS: Final = 1.0
"""Between two looks into the coordinator's database."""

logger = logging.getLogger(__name__)


class DirectoryWatch:
    """Looks until `stop`, in a thread of its own."""

    def __init__(self, source: DirectorySource) -> None:
        self._source = source
        self._found: Directory | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="directory", daemon=True)
        self._thread.start()

    def take(self) -> Directory | None:
        """The directory as it was read last; None where it was taken before, or the database fails."""
        found, self._found = self._found, None
        return found

    def stop(self) -> None:
        """End the thread, once the database has answered."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        is_failing = False
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self._found = self._source.read()
            except JournalUnavailableError as error:
                if not is_failing:
                    remedy = "none if it comes back: sessions go on as they are"
                    logger.error(log_line("relay_database_unavailable", error=error, remedy=remedy))
                is_failing = True
            else:
                is_failing = False
