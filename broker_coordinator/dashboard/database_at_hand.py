"""The coordinator's database, as the dashboard reads it: opened when asked, and again when it is another one."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from broker_coordinator.storage.database import Database, JournalUnavailableError, open_database
from broker_coordinator.storage.journal_reader import JournalReader
from fleet_protocol.errors import ConfigurationError

Answer = TypeVar("Answer")
FileIdentity = tuple[int, int]


class DatabaseAtHand:
    """Reads in any thread. What fails now is tried anew at the next question; nothing is ever written."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._opening = threading.Lock()
        self._journal: JournalReader | None = None
        self._identity: FileIdentity | None = None

    def read(self, question: Callable[[JournalReader], Answer]) -> Answer:
        """Ask the database.

        Raises:
            JournalUnavailableError: it is gone, locked or damaged.
        """
        return question(self._opened())

    def close(self) -> None:
        """Let go of it."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _opened(self) -> JournalReader:
        with self._opening:
            identity = _identity_of(self._database)
            if self._journal is None or identity != self._identity:
                self.close()
                try:
                    self._journal = JournalReader(open_database(self._database, read_only=True))
                except ConfigurationError as error:
                    raise JournalUnavailableError(str(error)) from error
                self._identity = identity
            return self._journal


def _identity_of(database: Database) -> FileIdentity | None:
    """Which file it is: a restored database has the same path, and is another one. None of PostgreSQL's.

    Raises:
        JournalUnavailableError: there is no file.
    """
    if not isinstance(database, Path):
        return None
    try:
        found = database.stat()
    except OSError as error:
        raise JournalUnavailableError(f"database {database}: {error.strerror}") from error
    return found.st_dev, found.st_ino
