"""What an agent must never forget: sequence numbers, residuals, the outbox and what became of each update.

Every commit is forced to the disk (`synchronous=FULL`). A round is one transaction: residual, outbox row and the
samples it used. So is a receipt. Whatever kills the process or the power in between, the sum of what was sent and
what is kept stays the sum of what was learned.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import Outcome

SETTLED_ROWS_KEPT = 10_000
"""Old verdicts are forgotten beyond this: about 1 MB."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS tasks (
    task TEXT PRIMARY KEY, bundle TEXT NOT NULL, rounds INTEGER NOT NULL, trained_through INTEGER NOT NULL,
    residual BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS manifests (
    task TEXT PRIMARY KEY, version INTEGER NOT NULL, bundle TEXT NOT NULL, weights TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS held_versions (
    task TEXT PRIMARY KEY, version INTEGER NOT NULL, bundle TEXT NOT NULL, weights TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS outbox (
    sequence INTEGER PRIMARY KEY, task TEXT NOT NULL, bundle TEXT NOT NULL, base_version INTEGER NOT NULL,
    packed BLOB NOT NULL, payload BLOB NOT NULL, envelope BLOB NOT NULL, digest BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS returned (
    sequence INTEGER PRIMARY KEY, task TEXT NOT NULL, bundle TEXT NOT NULL, packed BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS settled (
    sequence INTEGER PRIMARY KEY, digest BLOB NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class TaskMemory:
    """What a device remembers of a task between rounds. `residual` is the error feedback's state, empty at first.

    `returned` are packed updates that were rejected: the next round adds them back to the residual.
    """

    bundle: str
    rounds: int
    trained_through: int
    residual: bytes
    returned: tuple[tuple[int, bytes], ...]


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """The newest manifest that was believed."""

    version: int
    bundle: str
    weights: str


@dataclass(frozen=True, slots=True)
class SpooledRound:
    """The result of a round, as it is committed."""

    task: str
    bundle: str
    base_version: int
    trained_through: int
    packed: bytes
    payload: bytes
    residual: bytes
    returned: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An update that waits for its receipt. `digest` names `envelope` in receipts."""

    sequence: int
    task: str
    base_version: int
    payload: bytes
    envelope: bytes
    digest: bytes


SignUpdate = Callable[[int, str, int, bytes], tuple[bytes, bytes]]
"""(sequence, task, base version, payload) -> (envelope, digest)."""

_OUTBOX_COLUMNS = "sequence, task, base_version, payload, envelope, digest"


class DeviceDatabase:
    """The agent's durable memory; one process at a time.

    A new one starts at `first_boot`. Drawn at random, it tells a device whose memory was wiped that it had an earlier
    life: the coordinator has then heard another boot number from it.
    """

    def __init__(self, path: Path, first_boot: int = 1) -> None:
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=1.0)
            self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(SCHEMA)
            with self._transaction():
                self._set_counter("boot", max(self._counter("boot") + 1, first_boot))
        except sqlite3.DatabaseError as error:
            raise ConfigurationError(
                f"database {path}: {error}; give each agent a state_folder of its own that it may write,"
                " and move a damaged file away"
            ) from error
        self.boot = self._counter("boot")

    def memory(self, task: str, bundle: str) -> TaskMemory:
        """What is remembered of a task; a new bundle starts with an empty residual and sees all samples as new."""
        query = "SELECT bundle, rounds, trained_through, residual FROM tasks WHERE task = ?"
        row = self._connection.execute(query, (task,)).fetchone()
        if row is None or row[0] != bundle:
            return TaskMemory(bundle, 0, 0, b"", ())
        _, rounds, trained_through, residual = row
        returned = self._connection.execute(
            "SELECT sequence, packed FROM returned WHERE task = ? AND bundle = ? ORDER BY sequence",
            (task, bundle),
        )
        return TaskMemory(bundle, rounds, trained_through, residual, tuple(returned.fetchall()))

    def trained_through(self, task: str) -> int:
        """The newest sample id that a round of this task has seen."""
        row = self._connection.execute("SELECT trained_through FROM tasks WHERE task = ?", (task,)).fetchone()
        return 0 if row is None else int(row[0])

    def known_version(self, task: str) -> KnownVersion | None:
        """The newest version of a task that this device has heard of."""
        query = "SELECT version, bundle, weights FROM manifests WHERE task = ?"
        row = self._connection.execute(query, (task,)).fetchone()
        return None if row is None else KnownVersion(*row)

    def know_version(self, task: str, known: KnownVersion) -> None:
        """Remember a manifest that was believed."""
        self._connection.execute(
            "INSERT OR REPLACE INTO manifests VALUES (?, ?, ?, ?)",
            (task, known.version, known.bundle, known.weights),
        )

    def held_version(self, task: str) -> KnownVersion | None:
        """The version of a task whose weights were last complete on this device."""
        query = "SELECT version, bundle, weights FROM held_versions WHERE task = ?"
        row = self._connection.execute(query, (task,)).fetchone()
        return None if row is None else KnownVersion(*row)

    def hold_version(self, task: str, held: KnownVersion) -> None:
        """Remember which version's weights are complete; nothing is written where it is known already."""
        if self.held_version(task) != held:
            self._connection.execute(
                "INSERT OR REPLACE INTO held_versions VALUES (?, ?, ?, ?)",
                (task, held.version, held.bundle, held.weights),
            )

    def spool(self, finished: SpooledRound, sign: SignUpdate) -> OutboxRow:
        """Commit a round: residual, outbox row and sequence number together."""
        with self._transaction():
            sequence = self._increment("update_sequence")
            self._increment("updates_made")
            envelope, digest = sign(sequence, finished.task, finished.base_version, finished.payload)
            self._connection.execute(
                "INSERT INTO tasks VALUES (:task, :bundle, 1, :trained_through, :residual) ON CONFLICT (task) DO UPDATE"
                " SET rounds = rounds * (bundle = :bundle) + 1, bundle = :bundle, trained_through = :trained_through,"
                " residual = :residual",
                {
                    "task": finished.task,
                    "bundle": finished.bundle,
                    "trained_through": finished.trained_through,
                    "residual": finished.residual,
                },
            )
            self._connection.execute(
                "INSERT INTO outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    sequence,
                    finished.task,
                    finished.bundle,
                    finished.base_version,
                    finished.packed,
                    finished.payload,
                    envelope,
                    digest,
                ),
            )
            self._connection.executemany(
                "DELETE FROM returned WHERE sequence = ?", [(number,) for number in finished.returned]
            )
            self._connection.execute(
                "DELETE FROM returned WHERE task = ? AND bundle != ?", (finished.task, finished.bundle)
            )
        return OutboxRow(sequence, finished.task, finished.base_version, finished.payload, envelope, digest)

    def outbox(self) -> list[OutboxRow]:
        """Everything that waits for a receipt, oldest first."""
        rows = self._connection.execute(f"SELECT {_OUTBOX_COLUMNS} FROM outbox ORDER BY sequence")  # noqa: S608
        return [OutboxRow(*row) for row in rows]

    def waiting(self, task: str | None = None) -> int:
        """How many updates wait for a receipt."""
        query = "SELECT COUNT(*) FROM outbox WHERE ? IS NULL OR task = ?"
        return int(self._connection.execute(query, (task, task)).fetchone()[0])

    def find(self, digest: bytes) -> OutboxRow | None:
        """The waiting update whose signed bytes have this digest."""
        query = f"SELECT {_OUTBOX_COLUMNS} FROM outbox WHERE digest = ?"  # noqa: S608 - a constant
        row = self._connection.execute(query, (digest,)).fetchone()
        return None if row is None else OutboxRow(*row)

    def settle(self, row: OutboxRow, outcome: Outcome, reason: str) -> None:
        """Take an update out of the outbox. A rejected one is kept for the next round's residual."""
        with self._transaction():
            if outcome is Outcome.REJECTED:
                self._connection.execute(
                    "INSERT INTO returned SELECT sequence, task, bundle, packed FROM outbox WHERE sequence = ?",
                    (row.sequence,),
                )
            self._connection.execute(
                "INSERT OR REPLACE INTO settled VALUES (?, ?, ?, ?)",
                (row.sequence, row.digest, outcome.value, reason),
            )
            self._connection.execute("DELETE FROM outbox WHERE sequence = ?", (row.sequence,))
            self._connection.execute(
                "DELETE FROM settled WHERE sequence <= (SELECT MAX(sequence) FROM settled) - ?",
                (SETTLED_ROWS_KEPT,),
            )

    def renumber(self, row: OutboxRow, highest_sequence: int, sign: SignUpdate) -> OutboxRow:
        """Give a waiting update a number that the coordinator has not seen from this device's earlier life."""
        with self._transaction():
            self._set_counter("update_sequence", max(highest_sequence, self._counter("update_sequence")))
            sequence = self._increment("update_sequence")
            envelope, digest = sign(sequence, row.task, row.base_version, row.payload)
            self._connection.execute(
                "UPDATE outbox SET sequence = ?, envelope = ?, digest = ? WHERE sequence = ?",
                (sequence, envelope, digest, row.sequence),
            )
        return OutboxRow(sequence, row.task, row.base_version, row.payload, envelope, digest)

    def is_enrolled(self) -> bool:
        """Whether the coordinator has accepted this device, as far as it has said."""
        return self._counter("enrolled") > 0

    def set_enrolled(self, enrolled: bool) -> None:
        """Remember whether the coordinator knows this device."""
        with self._transaction():
            self._set_counter("enrolled", int(enrolled))

    def continue_boots(self, newest: int) -> int:
        """Start a new boot number behind `newest`, which this device has forgotten; returns it."""
        with self._transaction():
            self._set_counter("boot", newest + 1)
        self.boot = newest + 1
        return self.boot

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # a full disk makes SQLite roll back by itself
                self._connection.execute("ROLLBACK")
            raise

    def _counter(self, name: str) -> int:
        row = self._connection.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
        return 0 if row is None else int(row[0])

    def _increment(self, name: str) -> int:
        self._set_counter(name, self._counter(name) + 1)
        return self._counter(name)

    def _set_counter(self, name: str, value: int) -> None:
        self._connection.execute("INSERT OR REPLACE INTO counters VALUES (?, ?)", (name, value))
