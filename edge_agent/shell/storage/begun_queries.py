"""On which terms queries were begun, and what their later rounds will cost: a table of agent.db.

It is a table of its own, as a column more in `query_answers` would make every seal of its rows wrong (`row_seals`). An
answer of an earlier release has no row here: the next round of its query is taken as it comes, and noted.
"""

import sqlite3
from typing import Final

TABLE: Final = """CREATE TABLE IF NOT EXISTS begun_queries (
    query INTEGER PRIMARY KEY, terms BLOB NOT NULL, epsilon REAL NOT NULL
)"""

_PROMISED: Final = """SELECT IFNULL(SUM(MAX(0.0, begun_queries.epsilon - paid)), 0.0) FROM begun_queries JOIN (
        SELECT query, SUM(epsilon) AS paid, MAX(day) AS last FROM query_answers WHERE answered GROUP BY query
    ) USING (query) WHERE query != :but AND last > :before"""


def note_begun(connection: sqlite3.Connection, query: int, terms: bytes, epsilon: float) -> None:
    """Inside the transaction that is open: a query that costs `epsilon` in all its rounds. What was noted stays."""
    connection.execute("INSERT OR IGNORE INTO begun_queries VALUES (?, ?, ?)", (query, terms, epsilon))


def read_terms(connection: sqlite3.Connection, query: int) -> bytes:
    """On which it was begun; empty where that is not known."""
    found = connection.execute("SELECT terms FROM begun_queries WHERE query = ?", (query,)).fetchone()
    return b"" if found is None else found[0]


def read_promised(connection: sqlite3.Connection, but: int, before: int) -> float:
    """Epsilon of all rounds to come of the queries that were answered after the day `before`, `but` one left out."""
    return float(connection.execute(_PROMISED, {"but": but, "before": before}).fetchone()[0])


def forget_unanswered(connection: sqlite3.Connection) -> None:
    """Inside the transaction that is open: those of which no answer is remembered any more."""
    connection.execute("DELETE FROM begun_queries WHERE query NOT IN (SELECT query FROM query_answers WHERE answered)")
