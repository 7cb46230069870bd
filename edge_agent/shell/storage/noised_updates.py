"""Noised updates that this device has made, by bundle: a table of agent.db, which `core.device_budget` makes sense of.

Rows are for good: a bundle that comes back goes on where it was.
"""

import sqlite3
from typing import Final

from edge_agent.core.device_budget import Sent
from edge_agent.shell.storage.counters import Counters
from edge_agent.shell.storage.row_seals import RowSeals

TABLE: Final = """CREATE TABLE IF NOT EXISTS noised_updates (
    task TEXT NOT NULL, bundle TEXT NOT NULL, noise REAL NOT NULL, updates INTEGER NOT NULL,
    PRIMARY KEY (task, bundle, noise)
)"""


class NoisedUpdates:
    """Of all tasks of a device. A counter of all updates says where damage has taken rows."""

    def __init__(self, connection: sqlite3.Connection, seals: RowSeals, counters: Counters) -> None:
        self._connection, self._seals, self._counters = connection, seals, counters

    def of(self, task: str) -> list[Sent]:
        """What noised updates of a task have told of this device, bundle after bundle."""
        query = "SELECT rowid, bundle, noise, updates FROM noised_updates WHERE task = ?"
        rows = self._connection.execute(query, (task,))
        return [Sent(*fields) for number, *fields in rows if self._seals.is_sound("noised_updates", number)]

    def lost(self, task: str) -> int:
        """How many of them damage has taken from what `of` gives."""
        return max(0, self._counters[_updates_of(task)] - self._known(task))

    def add(self, task: str, sent: Sent) -> None:
        """Add updates to what is stored, inside the transaction that is open."""
        known = self._known(task)
        self._connection.execute(
            "INSERT INTO noised_updates VALUES (?, ?, ?, ?)"
            " ON CONFLICT (task, bundle, noise) DO UPDATE SET updates = updates + excluded.updates",
            (task, sent.bundle, sent.noise, sent.updates),
        )
        self._counters.add(_updates_of(task), sent.updates, known)

    def _known(self, task: str) -> int:
        return sum(sent.updates for sent in self.of(task))


def _updates_of(task: str) -> str:
    """The counter of a task's noised updates."""
    return f"noised_updates.{task}"
