"""In which shard this device is: a table of agent.db with one row, or none before the first start.

`begins_in` is what agent.toml said then: another word there begins anew. `came_from` is the shard whose
retained presence is to be taken back still; empty where none is.
"""

import contextlib
import sqlite3
from typing import Final

from edge_agent.core.shard_choice import Place
from edge_agent.shell.storage.counters import Counters, transaction
from fleet_protocol.limits import MAX_BOOT

TABLE: Final = """CREATE TABLE IF NOT EXISTS own_shard (
    one INTEGER PRIMARY KEY CHECK (one = 1), begins_in TEXT NOT NULL, shard TEXT NOT NULL, signs_for TEXT NOT NULL,
    came_from TEXT NOT NULL
)"""


class OwnShard:
    """Every change is one transaction."""

    def __init__(self, connection: sqlite3.Connection, counters: Counters) -> None:
        self._connection = connection
        self._counters = counters

    def begin(self, begins_in: str) -> Place:
        """Where the device is at a start; `begins_in` is the shard that agent.toml names. A card that does not take
        what is new in that is asked again at the next start.
        """
        row = self._row()
        configured, shard, signs_for, _ = row or ("", begins_in, begins_in, "")
        if configured == begins_in:
            return Place(shard, signs_for)
        with contextlib.suppress(sqlite3.OperationalError):  # a full disk
            if row is not None:
                return self.move(begins_in, begins_in=begins_in)
            self._write(begins_in, begins_in, begins_in, "")
        return Place(begins_in, signs_for)

    def move(self, shard: str, *, begins_in: str | None = None) -> Place:
        """Be in another shard from now on, and enrol there: its coordinator may not have heard of this device. It goes
        on under the next boot number: a last will of before that is published late shows nobody as offline.
        """
        with transaction(self._connection):
            configured, before, signs_for, _ = self._row() or (shard, shard, shard, "")
            signs_for = self._signs_for(shard, signs_for)
            self._write(begins_in or configured, shard, signs_for, "" if before == shard else before)
            self._counters["enrolled"] = 0
            self._counters["boot"] = min(self._counters["boot"] + 1, MAX_BOOT)
        return Place(shard, signs_for)

    @property
    def came_from(self) -> str:
        """The shard whose presence is to be taken back still; empty where none is."""
        row = self._row()
        return row[3] if row else ""

    def forget_came_from(self) -> None:
        """It was taken back."""
        self._connection.execute("UPDATE own_shard SET came_from = ''")

    def _signs_for(self, shard: str, before: str) -> str:
        """The present shard, unless something waits that was signed for another one: it keeps its bytes."""
        waits = self._connection.execute("SELECT EXISTS (SELECT 1 FROM outbox WHERE NOT returned)").fetchone()[0]
        return before if waits else shard

    def _row(self) -> tuple[str, str, str, str] | None:
        columns = "SELECT begins_in, shard, signs_for, came_from FROM own_shard"
        found: tuple[str, str, str, str] | None = self._connection.execute(columns).fetchone()
        return found

    def _write(self, *fields: str) -> None:
        self._connection.execute("INSERT OR REPLACE INTO own_shard VALUES (1, ?, ?, ?, ?)", fields)
