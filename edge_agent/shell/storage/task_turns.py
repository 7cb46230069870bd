"""How many of this device's updates count in a task whose versions hide each device: a table of agent.db."""

import sqlite3
from typing import Final

from edge_agent.core.turns import Turns

TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS turns (task TEXT PRIMARY KEY, bundle TEXT NOT NULL, count INTEGER NOT NULL,"
    " version INTEGER NOT NULL)"
)


def read_turns(connection: sqlite3.Connection, task: str, bundle: str) -> tuple[int, Turns]:
    """The row's number, 0 where there is none of this bundle, and what it says."""
    query = "SELECT rowid, count, version FROM turns WHERE task = ? AND bundle = ?"
    row = connection.execute(query, (task, bundle)).fetchone()
    return (row[0], Turns(row[1], row[2])) if row else (0, Turns())


def take_turn(connection: sqlite3.Connection, task: str, bundle: str, version: int) -> None:
    """Count an update that was made from a version."""
    _, before = read_turns(connection, task, bundle)
    row = (task, bundle, before.count + 1, max(version, before.version))
    connection.execute("INSERT OR REPLACE INTO turns VALUES (?, ?, ?, ?)", row)


def settle_turn(connection: sqlite3.Connection, task: str, bundle: str, *, counts: bool) -> None:
    """Note what a receipt says of an update; nothing where its task's are not counted."""
    of_bundle = "WHERE task = ?1 AND bundle = ?2"
    if counts:
        newest = "(SELECT IFNULL(MAX(version), 0) FROM manifests WHERE task = ?1)"
        connection.execute(f"UPDATE turns SET version = MAX(version, {newest}) {of_bundle}", (task, bundle))  # noqa: S608
    else:
        connection.execute(f"UPDATE turns SET count = MAX(count - 1, 0) {of_bundle}", (task, bundle))  # noqa: S608
