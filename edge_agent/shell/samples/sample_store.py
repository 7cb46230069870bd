"""Samples on the device, and their features, in SQLite. Neither ever leaves it.

Features are deleted with their sample. Commits are not forced to the disk one by one: after a power cut the newest
samples may be missing, but an SD card is spared a write per sample. Updates are not in this database.
"""

import secrets
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial, wraps
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from edge_agent.core.budget_rules import SpentBudget
from edge_agent.core.store_settings import Retention, StoreSettings
from edge_agent.shell.samples.budget_rows import count_resting, name_budget
from edge_agent.shell.samples.corrected_rows import first_after, note_correction
from edge_agent.shell.samples.dropped_samples import WAITING, DropCounts
from edge_agent.shell.samples.sample_retention import TURN_BITS, RetentionRule
from edge_agent.shell.samples.sample_tables import NOTE_ARRIVALS, SAMPLE_BYTES, SCHEMA, Held, require_sound, sample_size
from edge_agent.shell.samples.unjudged_samples import count_unjudged, keep_unjudged, unjudged_of
from edge_agent.shell.storage.damaged_files import files_set_aside, require_whole, set_aside
from edge_agent.shell.storage.page_cache import keep_few_pages
from edge_agent.sources.schema_check import check_sample
from edge_agent.worker.damage import is_unusable
from edge_agent.worker.usable_samples import fitting
from fleet_protocol.limits import MIB
from fleet_protocol.sample_line import Sample, read_sample
from fleet_protocol.task_description import TaskDescription

DEFAULTS: Final = StoreSettings()
DRAW_TURN: Final = partial(secrets.randbits, TURN_BITS)

P = ParamSpec("P")
R = TypeVar("R")


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
    """Keeps at most `maximum_samples` and `maximum_bytes` of each task, those that `retention` says.

    A damaged file is set aside, and a new one begun. Another process may delete samples, and add features: what is said
    of them here is true all the same.
    """

    def __init__(
        self,
        path: Path,
        maximum_samples: int,
        maximum_bytes: int = DEFAULTS.maximum_mib * MIB,
        retention: Retention = "newest",
        draw: Callable[[], int] = DRAW_TURN,
        *,
        notes_arrivals: bool = False,
    ) -> None:
        """`notes_arrivals`: store when each sample comes."""
        self.path = path
        self._maximum = maximum_samples
        self._maximum_bytes = maximum_bytes
        self._rule = RetentionRule(retention, draw)
        self._notes_arrivals = notes_arrivals
        self._seen = 0
        self._held: dict[str, Held] = {}
        self._drops = DropCounts()
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
        keep_few_pages(self._connection)
        self._connection.executescript(SCHEMA)
        require_sound(self._connection)
        if self._notes_arrivals:
            self._connection.execute(NOTE_ARRIVALS)
        self._rule.arrange(self._connection)
        self._drops.take_over(self._connection)
        self._look_again()

    def _look_again(self) -> None:
        """Count what is stored."""
        self._changes = self._foreign_changes()
        query = f"SELECT task, COUNT(*), MAX(id), SUM({SAMPLE_BYTES}) FROM samples GROUP BY task"  # noqa: S608 - a constant
        newest = {task: held.newest for task, held in self._held.items()}
        self._held = {task: Held(0, number) for task, number in newest.items()}
        for task, count, highest, size in self._connection.execute(query):
            self._held[task] = Held(count, max(highest, newest.get(task, 0)), size)
        self._unjudged = count_unjudged(self._connection)

    def _foreign_changes(self) -> int:
        """Another number whenever another process has changed the file."""
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def _of(self, task: str) -> Held:
        if self._foreign_changes() != self._changes:
            self._look_again()
        return self._held.get(task, Held())

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
        newest = max((held.newest for held in self._held.values()), default=0)
        self._held = {}
        self._connection.close()  # before its files have other names: closing deletes them by their path
        set_aside(self.path, reason)
        self._connection = sqlite3.connect(self.path, isolation_level=None)
        self._open()
        self.continue_after(max(newest, self._seen))

    @_mending
    def add(self, task: str, inputs: bytes, label: int | bytes, budget: str = "") -> int:
        """Store one sample and return its id; 0 where the store is full and it would be the first to make room.

        Inputs are float32 in C order, in bytes, and so is a label of values; `budget` is the name of one.

        Raises:
            ValueError: it is larger than all that a task may keep.
            sqlite3.OperationalError: the disk is full; nothing was stored.
        """
        held, size, turn = self._of(task), sample_size(inputs, label), self._rule.draws_turn()
        if size > self._maximum_bytes:
            raise ValueError(
                f"a sample of {size / MIB:.1f} MiB; all of {task} may take {self._maximum_bytes // MIB} MiB: raise"
                " [store] maximum_mib"
            )
        is_full = held.count >= self._maximum or held.size + size > self._maximum_bytes
        if is_full and self._rule.would_leave(self._connection, task, turn):
            self._drops.add(task, self._rule.name)
            return 0
        with self._transaction():
            after = self._put(task, inputs, label, held, turn, budget=budget)
        self._held[task] = after
        self._drops.add(task, self._rule.name, held.count + 1 - after.count)
        return after.newest

    def _put(
        self, task: str, inputs: bytes, label: int | bytes, held: Held, turn: int | None = None, *, budget: str = ""
    ) -> Held:
        """Store one sample and let others make room, inside the transaction that is open."""
        insert = "INSERT INTO samples (task, inputs, label) VALUES (?, ?, ?)"
        newest = int(self._connection.execute(insert, (task, inputs, label)).lastrowid or 0)
        name_budget(self._connection, newest, budget)
        self._rule.stored(self._connection, task, newest, label, turn)
        after = Held(held.count + 1, newest, held.size + sample_size(inputs, label))
        while after.count > self._maximum or after.size > self._maximum_bytes:
            leaving = self._rule.first_to_leave(self._connection, task)
            if leaving is None:
                break
            after = self._delete(leaving, after)
        return after

    def _delete(self, identifier: int, held: Held) -> Held:
        """Delete one sample of a task of which so much is held, inside the transaction that is open."""
        query = f"SELECT {SAMPLE_BYTES} FROM samples WHERE id = ?"  # noqa: S608 - a constant
        found = self._connection.execute(query, (identifier,)).fetchone()
        self._connection.execute("DELETE FROM samples WHERE id = ?", (identifier,))
        if found is None:
            self._connection.execute("DELETE FROM turns WHERE sample = ?", (identifier,))  # of a damaged card
            return held
        return replace(held, count=held.count - 1, size=held.size - found[0])

    @_mending
    def correct(self, task: str, identifier: int, label: int | bytes) -> int:
        """Give a stored sample another label; returns its new id, 0 where there is no such sample.

        It counts as new: rounds that have seen it learned something else. Its features stay, and so does what rounds
        have told of it.
        """
        held = self._of(task)
        with self._transaction():
            inserted = self._connection.execute(
                "INSERT INTO samples (task, inputs, label)"
                " SELECT task, inputs, ? FROM samples WHERE id = ? AND task = ?",
                (label, identifier, task),
            )
            if not inserted.rowcount:
                return 0
            newest = int(inserted.lastrowid or 0)
            self._connection.execute("UPDATE features SET sample = ? WHERE sample = ?", (newest, identifier))
            self._connection.execute("UPDATE budgets SET sample = ? WHERE sample = ?", (newest, identifier))
            note_correction(self._connection, identifier, newest)
            self._connection.execute("DELETE FROM samples WHERE id = ?", (identifier,))
            self._rule.stored(self._connection, task, newest, label)
        self._held[task] = replace(held, newest=newest)
        return newest

    @_mending
    def find(self, task: str, inputs: bytes) -> int:
        """The id of the newest stored sample with these inputs, 0 without one."""
        query = "SELECT MAX(id) FROM samples WHERE task = ? AND inputs = ?"
        return int(self._connection.execute(query, (task, inputs)).fetchone()[0] or 0)

    @_mending
    def add_unjudged(self, sample: Sample) -> None:
        """Store one sample of a task whose schema is not known; the oldest of these make room.

        Raises:
            sqlite3.OperationalError: the disk is full; nothing was stored.
        """
        with self._transaction():
            keep_unjudged(self._connection, sample, self._maximum)
        before, self._unjudged = self._unjudged + Counter([sample.task]), count_unjudged(self._connection)
        for task, dropped in (before - self._unjudged).items():
            self._drops.add(task, WAITING, dropped)

    @_mending
    def judge(self, description: TaskDescription) -> Judgement:
        """Judge, once, the samples that waited for this schema: those that fit are stored as any other."""
        task, held = description.task, self._of(description.task)
        before = held.count
        rows, kept, reason = unjudged_of(self._connection, task), 0, ""
        if not rows:
            return Judgement(0, 0, "")
        with self._transaction():
            for identifier, written in rows:
                try:
                    sample = read_sample(written)
                    held = self._put(task, *check_sample(sample, description), held, budget=sample.budget)
                    kept += 1
                except ValueError as error:
                    reason = reason or str(error)
                self._connection.execute("DELETE FROM unjudged WHERE id = ?", (identifier,))
        self._held[task] = held
        self._drops.add(task, self._rule.name, before + kept - held.count)
        self._unjudged = count_unjudged(self._connection)
        return Judgement(kept, len(rows) - kept, reason)

    def has_unjudged(self, task: str) -> bool:
        """Whether samples of a task wait for its schema."""
        return self._unjudged[task] > 0

    @_mending
    def count(self, task: str) -> int:
        """Samples stored for a task, those that wait for its schema included."""
        return self._of(task).count + self._unjudged[task]

    def dropped(self, task: str) -> dict[str, int]:
        """How many samples of a task retention has dropped, by rule, since the store was begun."""
        return self._drops.of(task)

    @_mending
    def resting(self, task: str, budgets: Sequence[SpentBudget]) -> dict[str, int]:
        """How many samples of a task take part in no step, as one of these budgets is spent, by its name; or as
        they name another one.
        """
        return dict(count_resting(self._connection, task, budgets))

    @_mending
    def has_first_after(self, task: str, identifier: int) -> bool:
        """Whether a sample of a task has come under a number above this one: none that was corrected since then."""
        return first_after(self._connection, task, identifier)

    @_mending
    def newest(self, task: str) -> int:
        """The id of the newest sample of a task, 0 without one."""
        return self._of(task).newest

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
            self._look_again()
        return dropped

    @_mending
    def drop_other_features(self, description: TaskDescription) -> int:
        """Delete a task's features that another backbone computed; returns how many."""
        query = "DELETE FROM features WHERE backbone != ? AND (SELECT task FROM samples WHERE id = features.sample) = ?"
        dropped = self._connection.execute(query, (description.backbone_hash, description.task)).rowcount
        if dropped:
            self._look_again()
        return dropped

    @_mending
    def drop(self, task: str, identifiers: Sequence[int]) -> None:
        """Delete these samples of a task."""
        delete = "DELETE FROM samples WHERE task = ? AND id = ?"
        with self._transaction():
            self._connection.executemany(delete, [(task, identifier) for identifier in identifiers])
        self._look_again()

    @_mending
    def forget(self, task: str, identifiers: Sequence[int] | None = None) -> int:
        """Delete these samples of a task, or all, and what waits for its schema; returns how many there were.

        Their bytes are overwritten in the file and its log, and a damaged file that was set aside is deleted.
        """
        before = self.count(task)
        self._connection.execute("PRAGMA secure_delete=ON")
        with self._transaction():
            if identifiers is None:
                self._connection.execute("DELETE FROM samples WHERE task = ?", (task,))
                self._connection.execute("DELETE FROM unjudged WHERE task = ?", (task,))
            else:
                named = [(task, identifier) for identifier in identifiers]
                self._connection.executemany("DELETE FROM samples WHERE task = ? AND id = ?", named)
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for file in files_set_aside(self.path):
            file.unlink(missing_ok=True)
        self._look_again()
        return before - self.count(task)

    def close(self) -> None:
        """Close the file; on a full disk without the newest counts of what was dropped."""
        with suppress(sqlite3.Error), self._connection:
            self._drops.write(self._connection)
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            yield
            self._drops.write_if_due(self._connection)
