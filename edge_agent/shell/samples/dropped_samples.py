"""How many samples retention has dropped, by task and rule: counted in memory, and kept in `samples.db` over restarts.

The card is spared a write per sample: what was counted is written with a sample that is stored, once it is
`DROPS_PER_WRITE`, and when the store is closed. So many at most are missing after a power cut.
"""

import sqlite3
from collections import Counter
from collections.abc import Mapping

DROPS_PER_WRITE = 32

WAITING = "waiting"
"""The rule by which samples go that wait for their task's schema: the oldest."""

Dropped = dict[str, dict[str, int]]
"""By task, then by rule: those of `[store] retention`, and `WAITING`."""


class DropCounts:
    """What was dropped since the file was begun; a new file in the place of a damaged one goes on counting."""

    def __init__(self) -> None:
        self._counted: Counter[tuple[str, str]] = Counter()
        self._unwritten = 0

    def take_over(self, connection: sqlite3.Connection) -> None:
        """Go on from what a file says, where that is more: another was set aside, or this one was."""
        for task, rule, count in _rows(connection):
            self._counted[task, rule] = max(count, self._counted[task, rule])

    def add(self, task: str, rule: str, count: int = 1) -> None:
        """So many more were dropped."""
        if count > 0:
            self._counted[task, rule] += count
            self._unwritten += count

    def write_if_due(self, connection: sqlite3.Connection) -> None:
        """Write them, inside the transaction that is open, once there are enough."""
        if self._unwritten >= DROPS_PER_WRITE:
            self.write(connection)

    def write(self, connection: sqlite3.Connection) -> None:
        """Write them where something is new."""
        if self._unwritten:
            rows = [(task, rule, count) for (task, rule), count in self._counted.items()]
            connection.executemany("INSERT OR REPLACE INTO dropped VALUES (?, ?, ?)", rows)
            self._unwritten = 0

    def of(self, task: str) -> dict[str, int]:
        """Of one task, by rule."""
        return {rule: count for (name, rule), count in self._counted.items() if name == task}


def read_dropped(connection: sqlite3.Connection) -> Dropped:
    """What a file says; nothing where it is of an earlier release."""
    found: Dropped = {}
    for task, rule, count in _rows(connection):
        found.setdefault(task, {})[rule] = count
    return found


def dropped_words(dropped: Mapping[str, int]) -> str:
    """For people: how many were dropped, by which rules; empty where none was."""
    total = sum(dropped.values())
    by_rule = ", ".join(f"{count} by {rule!r}" for rule, count in sorted(dropped.items()))
    return f"{total} made room or were not kept ({by_rule})" if total else ""


def _rows(connection: sqlite3.Connection) -> list[tuple[str, str, int]]:
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'dropped'").fetchone() is None:
        return []
    return connection.execute("SELECT task, rule, number FROM dropped").fetchall()
