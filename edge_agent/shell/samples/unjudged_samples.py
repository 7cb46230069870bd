"""Samples that came before their task's schema was known, in a table of `samples.db`; the oldest make room."""

import sqlite3
from collections import Counter

import msgspec

from fleet_protocol.limits import MIB
from fleet_protocol.sample_line import Sample

MAX_UNJUDGED_BYTES = 8 * MIB
"""Of samples that wait for their schema, over all tasks."""

_TOO_MANY = (
    "DELETE FROM unjudged WHERE task = ?"
    " AND id <= (SELECT id FROM unjudged WHERE task = ? ORDER BY id DESC LIMIT 1 OFFSET ?)"
)
_TOO_LONG = (
    "DELETE FROM unjudged WHERE id IN (SELECT id FROM"
    " (SELECT id, SUM(length(sample)) OVER (ORDER BY id DESC) AS held FROM unjudged) WHERE held > ?)"
)


def keep_unjudged(connection: sqlite3.Connection, sample: Sample, maximum: int) -> None:
    """Keep one more, of its task `maximum` at most, inside the transaction that is open."""
    written = msgspec.json.encode(sample)
    connection.execute("INSERT INTO unjudged (task, sample) VALUES (?, ?)", (sample.task, written))
    connection.execute(_TOO_MANY, (sample.task, sample.task, maximum))
    connection.execute(_TOO_LONG, (MAX_UNJUDGED_BYTES,))


def unjudged_of(connection: sqlite3.Connection, task: str) -> list[tuple[int, bytes]]:
    """(id, sample as JSON) of a task, oldest first."""
    return connection.execute("SELECT id, sample FROM unjudged WHERE task = ? ORDER BY id", (task,)).fetchall()


def count_unjudged(connection: sqlite3.Connection) -> Counter[str]:
    """How many wait, by task."""
    return Counter(dict(connection.execute("SELECT task, COUNT(*) FROM unjudged GROUP BY task")))
