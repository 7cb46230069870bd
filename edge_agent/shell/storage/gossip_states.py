"""The state of tasks with `[gossip]`, each part a row: a table of agent.db, and what is read of it.

A round writes what it has changed, in the transaction that ends it: all of that is there, or nothing. A damaged row
costs what it holds: of a neighbour, that neighbour's copy; of the device itself, the state.
"""

import sqlite3
from collections.abc import Mapping
from typing import Final

from edge_agent.core.gossip.earlier_state import BEGINS_WITH, parts_of_layout_1
from edge_agent.core.gossip.state import FLOAT_BYTES, HEAD, MODEL, PeerHead, read_head
from edge_agent.shell.storage.row_seals import RowSeals

TABLE: Final = """CREATE TABLE IF NOT EXISTS gossip_states (
    task TEXT NOT NULL, bundle TEXT NOT NULL, part TEXT NOT NULL, kept BLOB NOT NULL, PRIMARY KEY (task, part)
)"""


FIRST_SCHEMA: Final = 17
"""Of agent.db. Before it, a state was one row of `own_models`."""


class GossipStates:
    """Of all tasks. Parts are named and made by `edge_agent.core.gossip.state`."""

    def __init__(self, connection: sqlite3.Connection, seals: RowSeals) -> None:
        self._connection = connection
        self._seals = seals

    def read(self, task: str, bundle: str, *only: str) -> dict[str, bytes]:
        """The parts of a bundle's state: all, or `only` those of these names that are there."""
        rows = self._connection.execute(
            "SELECT rowid, part FROM gossip_states WHERE task = ? AND bundle = ?", (task, bundle)
        ).fetchall()
        found = {}
        for number, part in rows:
            if (not only or part in only) and self._seals.is_sound("gossip_states", number):
                (found[part],) = self._connection.execute(
                    "SELECT kept FROM gossip_states WHERE rowid = ?", (number,)
                ).fetchone()
        return found

    def head(self, task: str, bundle: str) -> PeerHead | None:
        """What is no matter of numbers; None where there is no state."""
        kept = self.read(task, bundle, HEAD).get(HEAD, b"")
        there = self._connection.execute(
            "SELECT part FROM gossip_states WHERE task = ? AND bundle = ?", (task, bundle)
        ).fetchall()
        return read_head(kept, {part for (part,) in there})

    def model(self, task: str, bundle: str, parameters: int) -> bytes:
        """What the device predicts with, float32 in bytes; empty where there is no state of a model of that size."""
        model = self.read(task, bundle, MODEL).get(MODEL, b"")
        is_usable = len(model) == FLOAT_BYTES * parameters and self.head(task, bundle) is not None
        return model if is_usable else b""


def write_parts(connection: sqlite3.Connection, task: str, bundle: str, changed: Mapping[str, bytes]) -> None:
    """Keep these in the place of those of the same names; empty ones are to go. Inside the transaction that is open."""
    for part, kept in changed.items():
        if kept:
            connection.execute("INSERT OR REPLACE INTO gossip_states VALUES (?, ?, ?, ?)", (task, bundle, part, kept))
        else:
            connection.execute("DELETE FROM gossip_states WHERE task = ? AND part = ?", (task, part))


def move_earlier(connection: sqlite3.Connection) -> None:
    """States that a file of before `FIRST_SCHEMA` holds become rows here. Inside the transaction that is open, once
    rows are sealed as they are written.
    """
    begins = (len(BEGINS_WITH), BEGINS_WITH)
    rows = connection.execute("SELECT task, bundle FROM own_models WHERE substr(kept, 1, ?) = ?", begins).fetchall()
    for task, bundle in rows:
        (kept,) = connection.execute("SELECT kept FROM own_models WHERE task = ?", (task,)).fetchone()
        if (parts := parts_of_layout_1(kept)) is not None:
            write_parts(connection, task, bundle, parts)
            connection.execute("DELETE FROM own_models WHERE task = ?", (task,))
