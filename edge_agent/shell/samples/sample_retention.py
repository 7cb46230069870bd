"""Which stored sample makes room for a new one.

`newest` keeps the newest. `reservoir` keeps an even draw from all that ever came: each has a random turn, and the
lowest leave (bottom-k sampling; Vitter's reservoir, 1985, with a bound on bytes too). `balanced` keeps as many of each
class as it can: the oldest of the class that has most leaves.
"""

import sqlite3
from collections.abc import Callable
from typing import Final

from edge_agent.core.store_settings import Retention

TURN_BITS = 62
"""Of a random turn: two are never the same."""
NO_CLASS = -1
"""The class of labels that are no class, as of a regression: they all are in one."""

_NUMBERS: Final[dict[Retention, int]] = {"newest": 0, "reservoir": 1, "balanced": 2}
"""In `PRAGMA user_version`: what the turns were made for. Files of earlier releases say 0."""

_OLDEST = "SELECT id FROM samples WHERE task = ? ORDER BY id LIMIT 1"
_LOWEST_TURN = (
    "SELECT sample FROM turns WHERE task = ?1 AND class ="
    " (SELECT class FROM turns WHERE task = ?1 GROUP BY class ORDER BY COUNT(*) DESC, class LIMIT 1)"
    " ORDER BY turn LIMIT 1"
)
_WITHOUT_TURN = (
    "SELECT id, task, CASE typeof(label) WHEN 'integer' THEN label ELSE NULL END FROM samples"
    " WHERE id NOT IN (SELECT sample FROM turns)"
)


class RetentionRule:
    """One of the rules, for one store. `draw` gives random numbers of `TURN_BITS` bits."""

    def __init__(self, name: Retention, draw: Callable[[], int]) -> None:
        self.name = name
        self._draw = draw

    def arrange(self, connection: sqlite3.Connection) -> None:
        """Give every stored sample its turn under this rule, which may have been another."""
        (arranged_for,) = connection.execute("PRAGMA user_version").fetchone()
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            if arranged_for != _NUMBERS[self.name]:
                connection.execute("DELETE FROM turns")
                connection.execute(f"PRAGMA user_version = {_NUMBERS[self.name]}")
            if self.name != "newest":
                for identifier, task, label in connection.execute(_WITHOUT_TURN).fetchall():
                    self.stored(connection, task, identifier, label)

    def draws_turn(self) -> int | None:
        """A turn for the next sample; None where its number is its turn."""
        return self._draw() if self.name == "reservoir" else None

    def would_leave(self, connection: sqlite3.Connection, task: str, turn: int | None) -> bool:
        """Whether a sample with this turn would be the first to leave a full store: then it needs no write."""
        if turn is None:
            return False
        (lowest,) = connection.execute("SELECT MIN(turn) FROM turns WHERE task = ?", (task,)).fetchone()
        return lowest is None or turn < lowest

    def stored(
        self,
        connection: sqlite3.Connection,
        task: str,
        identifier: int,
        label: int | bytes | None,
        turn: int | None = None,
    ) -> None:
        """Keep a stored sample's turn, inside the transaction that is open."""
        if self.name == "newest":
            return
        if self.name == "reservoir":
            place = 0, self._draw() if turn is None else turn
        else:
            place = label if isinstance(label, int) else NO_CLASS, identifier
        connection.execute("INSERT OR REPLACE INTO turns VALUES (?, ?, ?, ?)", (identifier, task, *place))

    def first_to_leave(self, connection: sqlite3.Connection, task: str) -> int | None:
        """The id of the sample that makes room; None where a task has none."""
        queries = (_OLDEST,) if self.name == "newest" else (_LOWEST_TURN, _OLDEST)  # a damaged card may lack turns
        found = (connection.execute(query, (task,)).fetchone() for query in queries)
        return next((int(row[0]) for row in found if row is not None), None)
