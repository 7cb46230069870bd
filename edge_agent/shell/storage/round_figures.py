"""What this device's last round of a task was like, where the task selects devices by it: a table of agent.db.

It is written in the transaction that ends the round, with its update: both are there, or neither.
"""

import sqlite3
from dataclasses import astuple
from typing import Final

from edge_agent.core.selection import RoundFigures

TABLE: Final = """CREATE TABLE IF NOT EXISTS round_figures (
    task TEXT PRIMARY KEY, bundle TEXT NOT NULL, samples INTEGER NOT NULL, loss REAL NOT NULL, seconds REAL NOT NULL,
    updates INTEGER NOT NULL, mean_before REAL NOT NULL
)"""


def read_figures(connection: sqlite3.Connection, task: str, bundle: str) -> tuple[int, RoundFigures | None]:
    """The row's number, 0 where there is none of this bundle, and what it says."""
    query = (
        "SELECT rowid, samples, loss, seconds, updates, mean_before FROM round_figures WHERE task = ? AND bundle = ?"
    )
    row = connection.execute(query, (task, bundle)).fetchone()
    return (row[0], RoundFigures(*row[1:])) if row else (0, None)


def write_figures(connection: sqlite3.Connection, task: str, bundle: str, figures: RoundFigures | None) -> None:
    """Keep them in the place of those that were kept; None leaves these as they are."""
    if figures is not None:
        row = (task, bundle, *astuple(figures))
        connection.execute("INSERT OR REPLACE INTO round_figures VALUES (?, ?, ?, ?, ?, ?, ?)", row)
