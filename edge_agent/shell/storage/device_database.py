"""The agent's database: sequence numbers, residuals, the outbox and the outcome of each payload.

Every commit is forced to the disk (`synchronous=FULL`). A round is one transaction: residual, its payloads and the
samples it used. So is a receipt. Whatever kills the process or the power in between, the sum of what was sent and
what is kept stays the sum of what was learned. A payload is written once: not again inside its envelope, nor when it
is returned.
"""

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

from edge_agent.core.analytics.policy import QueryUse, Spent
from edge_agent.core.daily_use import DailyUse
from edge_agent.core.device_budget import Sent
from edge_agent.core.guards import GuardSettings
from edge_agent.core.outbox import OutboxRow, SignRow, SpooledPayload
from edge_agent.core.selection import RoundFigures
from edge_agent.core.turns import Turns
from edge_agent.core.version_choice import KnownVersion
from edge_agent.shell.storage import gossip_states
from edge_agent.shell.storage.counters import Counters, transaction
from edge_agent.shell.storage.damaged_files import WatchedConnection, require_whole, why_unusable
from edge_agent.shell.storage.device_schema import prepare, require_schema
from edge_agent.shell.storage.drift_memories import read_drift, write_drift
from edge_agent.shell.storage.kept_updates import forget_kept, keep, read_kept, renumber_kept
from edge_agent.shell.storage.left_behind import forget_left_behind
from edge_agent.shell.storage.noised_updates import NoisedUpdates
from edge_agent.shell.storage.outbox_room import merge_back, waiting_bytes
from edge_agent.shell.storage.own_models import read_own, write_own
from edge_agent.shell.storage.own_shard import OwnShard
from edge_agent.shell.storage.page_cache import keep_few_pages
from edge_agent.shell.storage.query_answers import QueryAnswer, count_answers, read_spent, was_answered, write_answer
from edge_agent.shell.storage.rosters import Rosters
from edge_agent.shell.storage.round_figures import read_figures, write_figures
from edge_agent.shell.storage.row_seals import RowSeals
from edge_agent.shell.storage.sample_charges import SampleCharges
from edge_agent.shell.storage.sample_use import SampleUse, read_use, write_use
from edge_agent.shell.storage.task_clusters import read_cluster, write_cluster
from edge_agent.shell.storage.task_turns import read_turns, settle_turn, take_turn
from fleet_protocol.envelope import digest
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import Outcome
from fleet_protocol.limits import MAX_BOOT, MIB

MAX_WAITING_BYTES = GuardSettings().maximum_waiting_mib * MIB
SETTLED_ROWS_KEPT = 10_000
"""Outcomes kept, about 1 MB; older ones are deleted."""


@dataclass(frozen=True, slots=True)
class TaskMemory:
    """What a device remembers of a task between rounds. `residual` is the error feedback's state, empty at first.

    `returned` are payloads that were rejected: the next round adds them back to the residual. `generation` is that of
    the last round. `rounds` counts those that sent nothing too; they have gone over the samples of then `epochs` times.
    """

    bundle: str
    rounds: int
    trained_through: int
    residual: bytes
    returned: tuple[OutboxRow, ...]
    generation: int = 0
    epochs: float = 0.0


@dataclass(frozen=True, slots=True)
class SpooledRound:
    """The result of a round, as it is committed. `returned` are the numbers of those that its residual took back.

    `counts_turn`: its task takes few updates of one device. `noised`: what they tell of the device, if noise hides it.
    `own` is what the device keeps of the model to itself from now on, None where that stays as it is; `figures` are
    what the next rounds are selected by, None where the task selects none. `drift` is what the round has left against
    drift, None where that stays as it is. `cluster` is the one that it trained, where
    devices choose.
    """

    task: str
    bundle: str
    base_version: int
    trained_through: int
    payloads: tuple[SpooledPayload, ...]
    residual: bytes
    returned: tuple[int, ...] = ()
    generation: int = 0
    epochs: float = 0.0
    counts_turn: bool = False
    noised: Sent | None = None
    own: bytes | None = None
    figures: RoundFigures | None = None
    cluster: int | None = None
    drift: bytes | None = None


@dataclass(frozen=True, slots=True)
class KeptOfRound:
    """What a round that sends nothing changes on the device; `own` and `drift` as of `SpooledRound`, `gossip` the parts
    of its state among neighbours.
    """

    generation: int = 0
    own: bytes | None = None
    drift: bytes | None = None
    gossip: Mapping[str, bytes] = field(default_factory=dict)


NOTHING_KEPT = KeptOfRound()
NO_QUERY = 0
"""The number that no query has."""
UNNUMBERED = 0
"""Stands for the sequence number of a payload that the database has given none yet."""

_ROW = "sequence, kind, task, bundle, base_version, recipient, payload, digest, envelope, generation"
_DELETE_ROW = "DELETE FROM outbox WHERE sequence = ?"
_NEW_ROW = "INSERT INTO outbox VALUES (?, 0, ?, ?, ?, ?, ?, ?, ?, x'', ?)"
_DAILY_USE = ("use_day", "use_cpu_milliseconds", "use_bytes")
_VERSION = "version, bundle, weights, generation"


class DeviceDatabase:
    """The agent's database; one process at a time.

    A new one starts at `first_boot`. As that is random, a device whose database was emptied finds out: receipts name a
    higher boot number that the coordinator has received from it.
    """

    def __init__(self, path: Path, first_boot: int = 1, maximum_waiting_bytes: int = MAX_WAITING_BYTES) -> None:
        self._path = path
        self._maximum_waiting_bytes = maximum_waiting_bytes
        self.merged_back = 0
        """Updates since the start that went back to the next round, as the outbox had no room for them."""
        try:
            self._connection = sqlite3.connect(path, isolation_level=None, timeout=1.0, factory=WatchedConnection)
            self._connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            require_whole(self._connection)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            # Debian's SQLite overwrites what is deleted with zeros, which an SD card would pay for with each receipt.
            self._connection.execute("PRAGMA secure_delete=FAST")
            # Triggers (`row_seals`) make SQLite keep what a statement overwrites, the residual, until it is done: in
            # memory, or the card takes it twice.
            self._connection.execute("PRAGMA temp_store=MEMORY")
            keep_few_pages(self._connection)
            self._counters = Counters(self._connection)
            with transaction(self._connection):
                earlier = prepare(self._connection)
                require_schema(self._connection)
                self._seals = RowSeals(self._connection)
                self._seals.set_damaged_aside()
                if earlier < gossip_states.FIRST_SCHEMA:
                    gossip_states.move_earlier(self._connection)
                self._counters["update_sequence"] = max(self._counters["update_sequence"], self._last_number())
                self._connection.execute(
                    "INSERT OR IGNORE INTO counters VALUES ('sent_through', ?)", (self._last_number(),)
                )  # not noted by an earlier release, or damaged: what waits may have been sent
                self._counters["boot"] = min(max(self._counters["boot"] + 1, first_boot), MAX_BOOT)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if hasattr(self, "_connection"):
                self._connection.close()
            raise ConfigurationError(f"database {why_unusable(error, path)}") from error
        self.sample_charges = SampleCharges(self._connection, self._seals, self._counters)
        self.noised_updates = NoisedUpdates(self._connection, self._seals, self._counters)
        self.gossip_states = gossip_states.GossipStates(self._connection, self._seals)
        self.rosters = Rosters(self._connection, self._seals)
        self.own_shard = OwnShard(self._connection, self._counters)

    @property
    def boot(self) -> int:
        """The present boot number: it counts up with each start, and with each move to another shard."""
        return self._counters["boot"]

    @property
    def damage(self) -> str | None:
        """What is lost and what to do, where a statement has met damage."""
        error = self._connection.damage
        return None if error is None else f"database {why_unusable(error, self._path)}"

    def call_at_damage(self, on_damage: Callable[[], None]) -> None:
        """Call it when a statement meets damage."""
        self._connection.on_damage = on_damage

    def memory(self, task: str, bundle: str) -> TaskMemory:
        """What is remembered of a task; a new bundle starts with an empty residual and sees all samples as new."""
        query = "SELECT rowid, rounds, trained_through, residual, generation FROM tasks WHERE task = ? AND bundle = ?"
        row = self._connection.execute(query, (task, bundle)).fetchone()
        if row is None or not self._seals.is_sound("tasks", row[0]):
            row = (0, 0, 0, b"", 0)
        _, rounds, trained_through, residual, generation = row
        use = self._sample_use(task)
        if use.bundle == bundle:
            rounds, trained_through = rounds + use.withheld, max(trained_through, use.trained_through)
        epochs = use.epochs if use.bundle == bundle else 0.0
        columns = ", ".join(f"outbox.{column}" for column in _ROW.split(", "))
        returned = self._connection.execute(
            f"SELECT {columns}, COALESCE(settled.reason, '') FROM outbox LEFT JOIN settled USING (sequence)"  # noqa: S608
            " WHERE returned AND task = ? AND bundle = ? ORDER BY sequence",
            (task, bundle),
        )
        rows = (replace(OutboxRow(*fields), reason=reason) for *fields, reason in returned.fetchall())
        sound = tuple(self._with_kept(row) for row in rows if self._seals.is_sound("outbox", row.sequence))
        return TaskMemory(bundle, rounds, trained_through, residual, sound, generation, epochs)

    def _with_kept(self, row: OutboxRow) -> OutboxRow:
        kept = read_kept(self._connection, row.sequence)
        if not kept or not self._seals.is_sound("kept_updates", row.sequence):
            return row
        return replace(row, kept=kept)

    def trained_through(self, task: str) -> int:
        """The newest sample id that a round of this task has seen; to a new bundle, all samples are new."""
        query = (
            "SELECT MAX(trained_through) FROM (SELECT task, bundle, trained_through FROM tasks"
            " UNION ALL SELECT task, bundle, trained_through FROM sample_use) WHERE task = ?1"
            " AND bundle = IFNULL((SELECT bundle FROM manifests WHERE task = ?1), bundle)"
        )
        return int(self._connection.execute(query, (task,)).fetchone()[0] or 0)

    def _sample_use(self, task: str) -> SampleUse:
        number, use = read_use(self._connection, task)
        return use if number and self._seals.is_sound("sample_use", number) else SampleUse()

    def cluster(self, task: str) -> int:
        """The cluster of a task's devices that this one is in; 0: none, or nobody has said it yet."""
        number, cluster = read_cluster(self._connection, task)
        return cluster if number and self._seals.is_sound("clusters", number) else 0

    def turns(self, task: str, bundle: str) -> Turns:
        """This device's updates of a bundle that count, where the task takes few of one device."""
        number, turns = read_turns(self._connection, task, bundle)
        return turns if number and self._seals.is_sound("turns", number) else Turns()

    def own_model(self, task: str, bundle: str) -> bytes:
        """What this device keeps of a bundle's model to itself; empty at first, and of another bundle."""
        number, kept = read_own(self._connection, task, bundle)
        return kept if number and self._seals.is_sound("own_models", number) else b""

    def drift_memory(self, task: str, bundle: str, generation: int) -> bytes:
        """What this device's last round of a bundle's generation has left against drift; empty at first."""
        number, kept = read_drift(self._connection, task, bundle, generation)
        return kept if number and self._seals.is_sound("drift_memories", number) else b""

    def set_drift_memory(self, task: str, bundle: str, generation: int, kept: bytes | None) -> None:
        """Store it behind a round that has failed; None leaves it as it is."""
        with transaction(self._connection):
            write_drift(self._connection, task, bundle, generation, kept)
            self._forget_left_behind(task)

    def round_figures(self, task: str, bundle: str) -> RoundFigures | None:
        """What this device's last round of a bundle was like, where the task selects devices by it."""
        number, figures = read_figures(self._connection, task, bundle)
        return figures if number and self._seals.is_sound("round_figures", number) else None

    def set_cluster(self, task: str, cluster: int) -> None:
        """Store what a verified receipt says."""
        with transaction(self._connection):
            write_cluster(self._connection, task, cluster)

    def known_version(self, task: str) -> KnownVersion | None:
        """The newest version of a task that a manifest has named."""
        query = f"SELECT {_VERSION}, removed FROM manifests WHERE task = ?"  # noqa: S608 - a constant
        row = self._connection.execute(query, (task,)).fetchone()
        if row is None:
            return None
        version, bundle, weights, generation, removed = row
        return KnownVersion(version, bundle, weights, generation, bool(removed))

    def set_known_version(self, task: str, known: KnownVersion) -> None:
        """Store the version that a verified manifest names; what was kept for those of before it goes."""
        with transaction(self._connection):
            self._connection.execute(
                "INSERT OR REPLACE INTO manifests VALUES (?, ?, ?, ?, ?, ?)",
                (task, known.version, known.bundle, known.weights, known.generation, known.removed),
            )
            self._forget_left_behind(task)

    def _forget_left_behind(self, task: str) -> None:
        """Behind a manifest, and behind a round, which may have begun before it."""
        if (known := self.known_version(task)) is not None:
            forget_left_behind(self._connection, task, known)

    def held_version(self, task: str) -> KnownVersion | None:
        """The version of a task whose weights were last complete on this device."""
        query = f"SELECT {_VERSION} FROM held_versions WHERE task = ?"  # noqa: S608 - a constant
        row = self._connection.execute(query, (task,)).fetchone()
        return None if row is None else KnownVersion(*row)

    def set_held_version(self, task: str, held: KnownVersion) -> None:
        """Store which version's weights are complete; nothing is written where it is stored already."""
        if self.held_version(task) != held:
            self._connection.execute(
                "INSERT OR REPLACE INTO held_versions VALUES (?, ?, ?, ?, ?)",
                (task, held.version, held.bundle, held.weights, held.generation),
            )

    def spool(self, finished: SpooledRound, sign: SignRow) -> list[OutboxRow]:
        """Commit a round: residual, payloads and their sequence numbers together; the outbox is held to its bytes."""
        with transaction(self._connection):
            rows = [self._insert(_waiting(finished, payload), sign) for payload in finished.payloads]
            self._connection.execute(
                "INSERT INTO tasks VALUES (:task, :bundle, 1, :trained_through, :residual, :generation)"
                " ON CONFLICT (task) DO UPDATE SET rounds = rounds * (bundle = :bundle) + 1, bundle = :bundle,"
                " trained_through = :trained_through, residual = :residual, generation = :generation",
                {
                    "task": finished.task,
                    "bundle": finished.bundle,
                    "trained_through": finished.trained_through,
                    "residual": finished.residual,
                    "generation": finished.generation,
                },
            )
            write_use(
                self._connection, finished.task, SampleUse(finished.bundle, finished.trained_through, finished.epochs)
            )
            self._connection.executemany(
                "DELETE FROM outbox WHERE returned AND sequence = ?", [(number,) for number in finished.returned]
            )
            self._connection.execute(
                "DELETE FROM outbox WHERE returned AND task = ? AND bundle != ?", (finished.task, finished.bundle)
            )
            forget_kept(self._connection)
            write_own(self._connection, finished.task, finished.bundle, finished.own)
            write_figures(self._connection, finished.task, finished.bundle, finished.figures)
            write_drift(self._connection, finished.task, finished.bundle, finished.generation, finished.drift)
            if finished.cluster is not None:
                write_cluster(self._connection, finished.task, finished.cluster)
            if finished.counts_turn and rows:
                take_turn(self._connection, finished.task, finished.bundle, finished.base_version)
            if finished.noised is not None and rows:
                self.noised_updates.add(finished.task, finished.noised)
            self._forget_left_behind(finished.task)
            newest = {row.sequence for row in rows}
            merged = merge_back(self._connection, self._maximum_waiting_bytes, self._counters["sent_through"], newest)
        self.merged_back += merged
        return rows

    def spool_beside(self, unsigned: OutboxRow, sign: SignRow) -> bool:
        """Let a payload wait that is of no round and can be spared: not where the outbox is full. Whether it does."""
        with transaction(self._connection):
            if waiting_bytes(self._connection) >= self._maximum_waiting_bytes:
                return False
            self._insert(unsigned, sign)
        return True

    def note_sent(self, sequence: int) -> None:
        """Before a payload is handed to the link: whatever waits now may have been sent from here on."""
        if sequence > self._counters["sent_through"]:
            with transaction(self._connection):
                self._counters["sent_through"] = max(sequence, *self.waiting_numbers())

    def waiting_bytes(self) -> int:
        """Bytes of what waits for a receipt."""
        return waiting_bytes(self._connection)

    def sent_bytes(self) -> int:
        """Bytes of that part of it which may have been sent, and so has to wait."""
        return waiting_bytes(self._connection, self._counters["sent_through"])

    def withhold(
        self, task: str, bundle: str, trained_through: int, epochs: float, kept: KeptOfRound = NOTHING_KEPT
    ) -> None:
        """Commit a round that sends nothing: what earlier ones left behind stays but for what it has `kept`, and so do
        rejected payloads.
        """
        with transaction(self._connection):
            write_own(self._connection, task, bundle, kept.own)
            gossip_states.write_parts(self._connection, task, bundle, kept.gossip)
            write_drift(self._connection, task, bundle, kept.generation, kept.drift)
            self._forget_left_behind(task)
            write_use(self._connection, task, SampleUse(bundle, trained_through, epochs, withheld=1))

    def answer_query(self, answer: QueryAnswer, unsigned: OutboxRow, sign: SignRow) -> None:
        """Commit a report to a query, and what it cost, together; nothing where that round was answered before."""
        with transaction(self._connection):
            if not was_answered(self._connection, answer.query, answer.round):
                write_answer(self._connection, answer)
                self._insert(unsigned, sign)

    def was_answered(self, query: int, round_number: int) -> bool:
        """Whether this round of a query was answered."""
        return was_answered(self._connection, query, round_number)

    def spent_on_queries(self, query: int, today: int, days: int) -> Spent:
        """What answers have cost on the last so many days, `today` included, and what others' rounds will cost."""
        return read_spent(self._connection, query, today, days)

    def query_use(self, today: int, days: int) -> QueryUse:
        """What is remembered of queries, and what they have cost on the last so many days."""
        answered, refused = count_answers(self._connection)
        spent = read_spent(self._connection, NO_QUERY, today, days)
        return QueryUse(answered, refused, spent.epsilon, spent.promised)

    def _insert(self, unsigned: OutboxRow, sign: SignRow) -> OutboxRow:
        """Give a payload its number, and let it wait."""
        self._counters.increment("updates_made")
        numbered = replace(unsigned, sequence=self._counters.increment("update_sequence"))
        row = replace(numbered, digest=digest(sign(numbered)))
        fields = (row.kind, row.task, row.bundle, row.base_version, row.recipient, row.digest, row.payload)
        self._connection.execute(_NEW_ROW, (row.sequence, *fields, row.generation))
        keep(self._connection, row.sequence, row.kept)
        return row

    @property
    def highest_number(self) -> int:
        """The highest sequence number that a payload of this device has had."""
        return self._counters["update_sequence"]

    def waiting_numbers(self) -> list[int]:
        """The sequence numbers of everything that waits for a receipt, oldest first."""
        rows = self._connection.execute("SELECT sequence FROM outbox WHERE NOT returned ORDER BY sequence")
        return [number for (number,) in rows]

    def waiting(self, task: str | None = None) -> int:
        """How many payloads wait for a receipt."""
        query = "SELECT COUNT(*) FROM outbox WHERE NOT returned AND (? IS NULL OR task = ?)"
        return int(self._connection.execute(query, (task, task)).fetchone()[0])

    def read(self, sequence: int) -> OutboxRow | None:
        """What waits under a number; None where it has its receipt."""
        return self._one("sequence", sequence)

    def find(self, name: bytes) -> OutboxRow | None:
        """What waits and whose envelope has this digest."""
        return self._one("digest", name)

    def _one(self, column: str, value: int | bytes) -> OutboxRow | None:
        query = f"SELECT {_ROW} FROM outbox WHERE {column} = ? AND NOT returned"  # noqa: S608 - constants
        fields = self._connection.execute(query, (value,)).fetchone()
        row = None if fields is None else OutboxRow(*fields)
        return row if row is not None and self._seals.is_sound("outbox", row.sequence) else None

    def settle(self, row: OutboxRow, outcome: Outcome, reason: str, *, returned: bool = False) -> None:
        """Take a payload out of the outbox; `returned` keeps it for the next round's residual."""
        with transaction(self._connection):
            done = "UPDATE outbox SET returned = 1 WHERE sequence = ?" if returned else _DELETE_ROW
            self._connection.execute(done, (row.sequence,))
            settle_turn(self._connection, row.task, row.bundle, counts=outcome is Outcome.ACCEPTED)
            forget_kept(self._connection)
            self._connection.execute(
                "INSERT OR REPLACE INTO settled VALUES (?, ?, ?, ?)",
                (row.sequence, row.digest, outcome.value, reason),
            )
            self._connection.execute(
                "DELETE FROM settled WHERE sequence <= (SELECT MAX(sequence) FROM settled) - ?",
                (SETTLED_ROWS_KEPT,),
            )

    def has_settled(self, name: bytes) -> bool:
        """Whether an envelope with this digest has had its receipt, as far back as is remembered."""
        return self._connection.execute("SELECT 1 FROM settled WHERE digest = ?", (name,)).fetchone() is not None

    def renumber(self, row: OutboxRow, highest_sequence: int, sign: SignRow) -> OutboxRow:
        """Give a waiting payload a new number above `highest_sequence`, and sign it again."""
        with transaction(self._connection):
            self._counters["update_sequence"] = max(highest_sequence, self._counters["update_sequence"])
            unsigned = replace(row, sequence=self._counters.increment("update_sequence"), digest=b"", envelope=b"")
            renumbered = replace(unsigned, digest=digest(sign(unsigned)))
            self._connection.execute(
                "UPDATE outbox SET sequence = ?, digest = ?, envelope = x'' WHERE sequence = ?",
                (renumbered.sequence, renumbered.digest, row.sequence),
            )
            renumber_kept(self._connection, row.sequence, renumbered.sequence)
        return renumbered

    def daily_use(self) -> DailyUse:
        """What was used on the last day of which something is stored."""
        return DailyUse(*(self._counters[name] for name in _DAILY_USE))

    def set_daily_use(self, use: DailyUse) -> None:
        """Store it."""
        with transaction(self._connection):
            for name, value in zip(_DAILY_USE, astuple(use), strict=True):
                self._counters[name] = value

    def is_enrolled(self) -> bool:
        """Whether a receipt has said that the coordinator accepts this device."""
        return self._counters["enrolled"] > 0

    def set_enrolled(self, enrolled: bool) -> None:
        """Store whether the coordinator knows this device."""
        with transaction(self._connection):
            self._counters["enrolled"] = int(enrolled)

    def continue_boots(self, newest: int) -> int:
        """Start a new boot number after `newest`, which is at most MAX_BOOT; returns it. The last one is kept."""
        boot = min(newest + 1, MAX_BOOT)
        with transaction(self._connection):
            self._counters["boot"] = boot
        return boot

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _last_number(self) -> int:
        """The highest sequence number that is in the tables, should the counter be lost."""
        query = "SELECT MAX(sequence) FROM (SELECT sequence FROM outbox UNION ALL SELECT sequence FROM settled)"
        return int(self._connection.execute(query).fetchone()[0] or 0)


def _waiting(finished: SpooledRound, spooled: SpooledPayload) -> OutboxRow:
    """A round's payload, without a number."""
    return OutboxRow(
        UNNUMBERED,
        spooled.kind,
        finished.task,
        finished.bundle,
        finished.base_version,
        spooled.recipient,
        spooled.payload,
        generation=finished.generation,
        kept=spooled.kept,
    )
