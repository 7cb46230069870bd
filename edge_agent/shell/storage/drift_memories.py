"""What this device's last round of a task has left against drift (docs/drift.md): a table of agent.db.

It is written in the transaction that ends a round, with the round's update: both are there, or neither. It is of one
generation of one bundle: what another one's devices did says nothing of where this one's fleet moves.
"""

import sqlite3
from typing import Final

TABLE: Final = """CREATE TABLE IF NOT EXISTS drift_memories (
    task TEXT PRIMARY KEY, bundle TEXT NOT NULL, generation INTEGER NOT NULL, kept BLOB NOT NULL
)"""


def read_drift(connection: sqlite3.Connection, task: str, bundle: str, generation: int) -> tuple[int, bytes]:
    """The row's number, 0 where there is none of this bundle and generation, and what is kept."""
    query = "SELECT rowid, kept FROM drift_memories WHERE task = ? AND bundle = ? AND generation = ?"
    return connection.execute(query, (task, bundle, generation)).fetchone() or (0, b"")


def write_drift(connection: sqlite3.Connection, task: str, bundle: str, generation: int, kept: bytes | None) -> None:
    """Keep it in the place of what was kept; None leaves that as it is."""
    if kept is not None:
        connection.execute(
            "INSERT OR REPLACE INTO drift_memories VALUES (?, ?, ?, ?)", (task, bundle, generation, kept)
        )
