"""Numbers with a name, in a table of agent.db; and what several of its tables are written in together."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of a block, or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk makes SQLite roll back by itself
            connection.execute("ROLLBACK")
        raise


class Counters:
    """Each is 0 until it is set. Damage may take one; whoever has rows that say the same counts on from these."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __getitem__(self, name: str) -> int:
        row = self._connection.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
        return 0 if row is None else int(row[0])

    def __setitem__(self, name: str, value: int) -> None:
        self._connection.execute(
            "INSERT INTO counters VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (name, value)
        )

    def increment(self, name: str) -> int:
        """Count one up; returns what it is then."""
        self[name] += 1
        return self[name]

    def add(self, name: str, more: int, known: int) -> None:
        """Add `more`, which may be negative, to what it is, or to what rows have said before, where that is more."""
        self[name] = max(0, max(self[name], known) + more)
