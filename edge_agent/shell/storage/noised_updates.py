"""Noised updates that this device has made, by bundle: a table of agent.db, which `core.device_budget` makes sense of.

Rows are for good: a bundle that comes back goes on where it was.
"""

import sqlite3
from typing import Final

from edge_agent.core.device_budget import Sent

TABLE: Final = """CREATE TABLE IF NOT EXISTS noised_updates (
    task TEXT NOT NULL, bundle TEXT NOT NULL, noise REAL NOT NULL, updates INTEGER NOT NULL,
    PRIMARY KEY (task, bundle, noise)
)"""


def read_sent(connection: sqlite3.Connection, task: str) -> list[tuple[int, Sent]]:
    """Each row's number, and what it says."""
    rows = connection.execute("SELECT rowid, bundle, noise, updates FROM noised_updates WHERE task = ?", (task,))
    return [(number, Sent(*fields)) for number, *fields in rows]


def add_sent(connection: sqlite3.Connection, task: str, sent: Sent) -> None:
    """Add updates to what is stored, inside the transaction that is open."""
    connection.execute(
        "INSERT INTO noised_updates VALUES (?, ?, ?, ?)"
        " ON CONFLICT (task, bundle, noise) DO UPDATE SET updates = updates + excluded.updates",
        (task, sent.bundle, sent.noise, sent.updates),
    )
