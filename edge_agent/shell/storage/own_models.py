"""What this device keeps of a task's model to itself, where the task has `[personal]`: a table of
agent.db.

It is written in the transaction that ends a round, with the round's update: both are there, or neither.
"""

import sqlite3
from typing import Final

TABLE: Final = """CREATE TABLE IF NOT EXISTS own_models (
    task TEXT PRIMARY KEY, bundle TEXT NOT NULL, kept BLOB NOT NULL
)"""


def read_own(connection: sqlite3.Connection, task: str, bundle: str) -> tuple[int, bytes]:
    """The row's number, 0 where there is none of this bundle, and what is kept: float32 values."""
    query = "SELECT rowid, kept FROM own_models WHERE task = ? AND bundle = ?"
    row = connection.execute(query, (task, bundle)).fetchone()
    return row or (0, b"")


def write_own(connection: sqlite3.Connection, task: str, bundle: str, kept: bytes | None) -> None:
    """Keep it in the place of what was kept; None leaves that as it is."""
    if kept is not None:
        connection.execute("INSERT OR REPLACE INTO own_models VALUES (?, ?, ?)", (task, bundle, kept))
