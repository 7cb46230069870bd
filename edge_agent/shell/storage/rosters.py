"""Which devices learn each task without a coordinator, as its newest roster says: a table of agent.db.

The broker may lose the retained one while no coordinator runs, and an old one may come back: this one is kept.
"""

import contextlib
import sqlite3
from typing import Final

from edge_agent.shell.storage.row_seals import RowSeals
from fleet_protocol.errors import ProtocolError
from fleet_protocol.kinds import Roster, decode_payload, encode_payload

TABLE: Final = "CREATE TABLE IF NOT EXISTS rosters (task TEXT PRIMARY KEY, roster BLOB NOT NULL)"


class Rosters:
    """One for each task at most; every change is one statement."""

    def __init__(self, connection: sqlite3.Connection, seals: RowSeals) -> None:
        self._connection = connection
        self._seals = seals

    def read(self, task: str) -> Roster | None:
        """The newest that is known of a task."""
        row = self._connection.execute("SELECT rowid, roster FROM rosters WHERE task = ?", (task,)).fetchone()
        if row is None or not self._seals.is_sound("rosters", row[0]):
            return None
        with contextlib.suppress(ProtocolError):  # of another release: the coordinator's comes again
            return decode_payload(row[1], Roster)
        return None

    def write(self, task: str, roster: Roster) -> None:
        """Store a verified one in the place of what is known."""
        self._connection.execute("INSERT OR REPLACE INTO rosters VALUES (?, ?)", (task, encode_payload(roster)))
