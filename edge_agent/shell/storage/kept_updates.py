"""What is in masked updates of the outbox, which the device keeps for itself until their cohorts are settled.

A table of its own: a new column of the outbox would break the seals of what waits there.
"""

import sqlite3
from typing import Final

TABLE: Final = """CREATE TABLE IF NOT EXISTS kept_updates (sequence INTEGER PRIMARY KEY, kept BLOB NOT NULL)"""


def keep(connection: sqlite3.Connection, sequence: int, kept: bytes) -> None:
    """Keep it with the payload of this number; nothing where there is nothing to keep."""
    if kept:
        connection.execute("INSERT OR REPLACE INTO kept_updates VALUES (?, ?)", (sequence, kept))


def read_kept(connection: sqlite3.Connection, sequence: int) -> bytes:
    """What is kept with the payload of this number; empty where nothing is."""
    row = connection.execute("SELECT kept FROM kept_updates WHERE sequence = ?", (sequence,)).fetchone()
    return b"" if row is None else bytes(row[0])


def renumber_kept(connection: sqlite3.Connection, before: int, after: int) -> None:
    """The payload has another number."""
    connection.execute("UPDATE kept_updates SET sequence = ? WHERE sequence = ?", (after, before))


def forget_kept(connection: sqlite3.Connection) -> None:
    """Delete what belongs to nothing in the outbox any more."""
    connection.execute("DELETE FROM kept_updates WHERE sequence NOT IN (SELECT sequence FROM outbox)")
