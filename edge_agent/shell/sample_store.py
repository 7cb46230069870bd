"""Samples on the device, and their features, in SQLite. Neither ever leaves it.

Features are deleted with their sample. Commits are not forced to the disk one by one: after a power cut the newest
samples may be missing, but an SD card is spared a write per sample. Updates are not in this database.
"""

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import msgspec

from edge_agent.shell.damaged_files import damage, require_same_tables, require_whole, set_aside
from edge_agent.sources.schema_check import check_sample
from edge_agent.worker.damage import is_unusable
from edge_agent.worker.usable_samples import fitting
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.limits import MIB
from fleet_protocol.sample_line import Sample, read_sample

SCHEMA = """
CREATE TABLE IF NOT EXISTS samples (
    id INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, inputs BLOB NOT NULL, label INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS samples_of_task ON samples (task, id);
CREATE TABLE IF NOT EXISTS features (sample INTEGER PRIMARY KEY, backbone TEXT NOT NULL, features BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS features_go_with_their_sample AFTER DELETE ON samples
BEGIN DELETE FROM features WHERE sample = OLD.id; END;
CREATE TABLE IF NOT EXISTS unjudged (id INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, sample BLOB NOT NULL);
"""
"""`backbone` is the hash of the file that made the features. `unjudged` are samples, as JSON, that came before
their task's schema was known. Stores made before there were these gain the tables."""

HIGHEST_NUMBER = 2**53
"""Of a sample. A number above it is damaged: no device ever counts so far, and SQLite would soon find none above it."""

P = ParamSpec("P")
R = TypeVar("R")

MAX_UNJUDGED_BYTES = 8 * MIB
"""Of samples that wait for their schema, over all tasks; the oldest make room."""


_TOO_MANY_UNJUDGED = (
    "DELETE FROM unjudged WHERE task = ?"
    " AND id <= (SELECT id FROM unjudged WHERE task = ? ORDER BY id DESC LIMIT 1 OFFSET ?)"
)
_TOO_LONG_UNJUDGED = (
    "DELETE FROM unjudged WHERE id IN (SELECT id FROM"
    " (SELECT id, SUM(length(sample)) OVER (ORDER BY id DESC) AS held FROM unjudged) WHERE held > ?)"
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of the samples that waited for their task's schema; `reason` is that of the first refused one."""

    kept: int
    refused: int
    reason: str


def _mending(method: Callable[Concatenate["SampleStore", P], R]) -> Callable[Concatenate["SampleStore", P], R]:
    """Do it again with a new file where the file turns out to be damaged."""

    @wraps(method)
    def mending(store: "SampleStore", /, *arguments: P.args, **named: P.kwargs) -> R:
        try:
            return method(store, *arguments, **named)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if not is_unusable(error):
                raise
            reason = str(error)
        store.start_anew(reason)
        return method(store, *arguments, **named)

    return mending


class SampleStore:
    """Keeps the newest `maximum_samples` of each task. A damaged file is set aside, and a new one begun."""

    def __init__(self, path: Path, maximum_samples: int) -> None:
        self.path = path
        self._maximum = maximum_samples
        self._seen = 0
        self._counts: dict[str, tuple[int, int]] = {}
        reason = ""
        self._connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            self._open()
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if not is_unusable(error):
                self._connection.close()
                raise
            reason = str(error)
        if reason:
            self.start_anew(reason)

    def _open(self) -> None:
        require_whole(self._connection)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.executescript(SCHEMA)
        _require_sound(self._connection)
        rows = self._connection.execute("SELECT task, COUNT(*), MAX(id) FROM samples GROUP BY task")
        self._counts = {task: (count, newest) for task, count, newest in rows}
        self._unjudged = self._count_unjudged()

    @_mending
    def continue_after(self, identifier: int) -> None:
        """Number new samples above this one, which a round has seen: should the file be a new one."""
        for change in (
            "INSERT INTO sqlite_sequence SELECT 'samples', 0 WHERE NOT EXISTS"
            " (SELECT 1 FROM sqlite_sequence WHERE name = 'samples')",
            f"UPDATE sqlite_sequence SET seq = MAX(seq, {identifier:d}) WHERE name = 'samples'",  # noqa: S608
        ):
            self._connection.execute(change)
        self._seen = max(self._seen, identifier)

    def start_anew(self, reason: str) -> None:
        """The file is damaged: set it aside, and begin an empty one."""
        newest = max((newest for _, newest in self._counts.values()), default=0)
        self._connection.close()  # before its files have other names: closing deletes them by their path
        set_aside(self.path, reason)
        self._connection = sqlite3.connect(self.path, isolation_level=None)
        self._open()
        self.continue_after(max(newest, self._seen))

    @_mending
    def add(self, task: str, inputs: bytes, label: int | bytes) -> int:
        """Store one sample and return its id. Inputs are float32 in C order, in bytes, and so is a label of values.

        Raises:
            sqlite3.OperationalError: the disk is full; nothing was stored.
        """
        return self._add_all(task, [(inputs, label)])

    def _add_all(self, task: str, samples: Sequence[tuple[bytes, int | bytes]], judged: Sequence[int] = ()) -> int:
        """Store samples, and take those out of `unjudged` that they came from; returns the id of the last one."""
        count, newest = self._counts.get(task, (0, 0))
        insert = "INSERT INTO samples (task, inputs, label) VALUES (?, ?, ?)"
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            for inputs, label in samples:
                newest = int(self._connection.execute(insert, (task, inputs, label)).lastrowid or 0)
            if (count := count + len(samples)) > self._maximum:
                oldest = "SELECT id FROM samples WHERE task = ? ORDER BY id LIMIT ?"
                self._connection.execute(
                    f"DELETE FROM samples WHERE id IN ({oldest})",  # noqa: S608 - a constant
                    (task, count - self._maximum),
                )
            self._connection.executemany("DELETE FROM unjudged WHERE id = ?", [(each,) for each in judged])
        self._counts[task] = (min(count, self._maximum), newest)
        return newest

    @_mending
    def add_unjudged(self, sample: Sample) -> None:
        """Store one sample of a task whose schema is not known; the oldest of these make room.

        Raises:
            sqlite3.OperationalError: the disk is full; nothing was stored.
        """
        written = msgspec.json.encode(sample)
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("INSERT INTO unjudged (task, sample) VALUES (?, ?)", (sample.task, written))
            self._connection.execute(_TOO_MANY_UNJUDGED, (sample.task, sample.task, self._maximum))
            self._connection.execute(_TOO_LONG_UNJUDGED, (MAX_UNJUDGED_BYTES,))
        self._unjudged = self._count_unjudged()

    @_mending
    def judge(self, description: TaskDescription) -> Judgement:
        """Judge, once, the samples that waited for this schema: those that fit are stored as any other."""
        rows = self._connection.execute(
            "SELECT id, sample FROM unjudged WHERE task = ?", (description.task,)
        ).fetchall()
        fitting_samples, reason = [], ""
        for _, written in rows:
            try:
                fitting_samples.append(check_sample(read_sample(written), description))
            except ValueError as error:
                reason = reason or str(error)
        if rows:
            self._add_all(description.task, fitting_samples, [identifier for identifier, _ in rows])
            self._unjudged = self._count_unjudged()
        return Judgement(len(fitting_samples), len(rows) - len(fitting_samples), reason)

    def _count_unjudged(self) -> Counter[str]:
        return Counter(dict(self._connection.execute("SELECT task, COUNT(*) FROM unjudged GROUP BY task")))

    def count(self, task: str) -> int:
        """Samples stored for a task, those that wait for its schema included."""
        return self._counts.get(task, (0, 0))[0] + self._unjudged[task]

    def newest(self, task: str) -> int:
        """The id of the newest sample of a task, 0 without one."""
        return self._counts.get(task, (0, 0))[1]

    @_mending
    def count_after(self, task: str, identifier: int) -> int:
        """Samples of a task that are newer than `identifier`, as all are that wait for its schema."""
        query = "SELECT COUNT(*) FROM samples WHERE task = ? AND id > ?"
        return int(self._connection.execute(query, (task, identifier)).fetchone()[0]) + self._unjudged[task]

    @_mending
    def drop_misfits(self, description: TaskDescription) -> int:
        """Delete samples that do not fit the task's schema, which was another once; returns how many."""
        condition, sizes = fitting(description)
        query = f"DELETE FROM samples WHERE task = ? AND NOT ({condition})"  # noqa: S608 - a constant
        dropped = self._connection.execute(query, (description.task, *sizes)).rowcount
        if dropped:
            count, newest = self._counts[description.task]
            self._counts[description.task] = (count - dropped, newest)
        return dropped

    @_mending
    def drop_other_features(self, description: TaskDescription) -> int:
        """Delete a task's features that another backbone computed; returns how many."""
        query = "DELETE FROM features WHERE backbone != ? AND (SELECT task FROM samples WHERE id = features.sample) = ?"
        return self._connection.execute(query, (description.backbone_hash, description.task)).rowcount

    @_mending
    def drop(self, task: str, identifiers: Sequence[int]) -> None:
        """Delete these samples of a task."""
        delete = "DELETE FROM samples WHERE task = ? AND id = ?"
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            dropped = self._connection.executemany(delete, [(task, identifier) for identifier in identifiers]).rowcount
        count, newest = self._counts.get(task, (0, 0))
        self._counts[task] = (count - dropped, newest)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _require_sound(connection: sqlite3.Connection) -> None:
    """Look at what a check of every page does not.

    Raises:
        sqlite3.DatabaseError: it is damaged.
    """
    with closing(sqlite3.connect(":memory:")) as new:
        new.executescript(SCHEMA)
        require_same_tables(connection, new)
    numbers = (
        "SELECT seq FROM sqlite_sequence UNION ALL SELECT MAX(id) FROM samples UNION ALL SELECT MAX(id) FROM unjudged"
    )
    (highest,) = connection.execute(f"SELECT MAX(seq) FROM ({numbers})").fetchone()  # noqa: S608 - a constant
    if (highest or 0) > HIGHEST_NUMBER:
        raise damage(f"a sample has the number {highest}")
