"""The journal's writing side: what arrived together is committed together, and a version is one transaction."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from itertools import count
from typing import Any, Final, Self

import msgspec
from sqlalchemy import Connection, Dialect, and_, insert, select, update

from broker_coordinator.admission.decisions import Accepted, Decision, Enrolled, Refused
from broker_coordinator.admission.fleet_view import Device
from broker_coordinator.aggregation.retention import Forgettable
from broker_coordinator.aggregation.version import Version
from broker_coordinator.storage.change_counters import TASKS, change_counters_in, count_up
from broker_coordinator.storage.database import Database, DatabaseSetBackError, DiskFullError, open_database, writing
from broker_coordinator.storage.device_registry import (
    forget_pending,
    has_taken_name,
    revoke_device,
    store_device,
)
from broker_coordinator.storage.invitation_registry import bind_password, note_refused_invitation, spend_invitation
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.noise_seeds import insert_seed
from broker_coordinator.storage.records import Aggregate
from broker_coordinator.storage.retention_rows import forget_envelopes, forget_weights
from broker_coordinator.storage.schema import WAITING, aggregates, payloads, refused_payloads, rejections, versions
from broker_coordinator.storage.standing import decided_after, decided_by
from broker_coordinator.storage.task_conditions import newest_number_in
from fleet_protocol.errors import ConfigurationError, Reason
from fleet_protocol.limits import MAX_SEQUENCE

Rejections = Mapping[tuple[Reason, str], int]
"""How many messages were refused, by reason and device; no device where the signature did not prove one."""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What one batch of messages adds to the journal. `after` is the last position that it was decided by,
    `tasks_counter` that of the tasks (`change_counters`), where it matters. `forgotten` are devices that make room for
    others, `invited` are enrolments that use up an invitation, `uninvited` those that were refused for theirs. What is
    `counted` are subjects of `change_counters`, for other shards' intakes.
    """

    accepted: Sequence[Accepted] = ()
    refused: Sequence[Refused] = ()
    devices: Sequence[Device] = ()
    forgotten: Sequence[Device] = ()
    rejections: Rejections = field(default_factory=dict)
    after: int = MAX_SEQUENCE
    tasks_counter: int | None = None
    invited: Sequence[Enrolled] = ()
    uninvited: Sequence[Refused] = ()
    counted: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        decisions: Sequence[Decision],
        devices: Sequence[Device],
        forgotten: Sequence[Device],
        after: int,
        tasks_counter: int | None = None,
        *,
        counted: Sequence[str] = (),
    ) -> Self:
        """The entry of a batch that has changed what is known of `devices`, the `forgotten` ones included."""
        refused = [decision for decision in decisions if isinstance(decision, Refused)]
        return cls(
            [decision for decision in decisions if isinstance(decision, Accepted)],
            [each for each in refused if each.burned_sequence is not None],
            devices,
            forgotten,
            Counter((each.reason, (each.verified and each.device) or "") for each in refused),
            after,
            tasks_counter,
            [decision for decision in decisions if isinstance(decision, Enrolled) and decision.invitation],
            [each for each in refused if each.reason is Reason.BAD_INVITATION],
            counted,
        )

    def senders(self) -> set[str | None]:
        """The devices whose sequence numbers it uses."""
        return {each.device for each in self.accepted} | {each.device for each in self.refused}

    def is_empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not (self.accepted or self.refused or self.devices or self.rejections or self.counted)


class TasksChangedError(Exception):
    """An operator changed a task since it was read: read it again."""


class JournalAheadError(Exception):
    """The journal has outcomes of a batch's devices that the batch was not decided by, or another key under one of
    their names; or an operator changed a task: read them, and decide again.
    """


class Journal(JournalReader):
    """The database of a running coordinator, its only writer besides operators' commands."""

    @classmethod
    def open(cls, database: Database) -> "Journal":
        """Open the database, and make it where it is missing.

        Raises:
            ConfigurationError: it can't be opened.
        """
        return cls(open_database(database))

    @classmethod
    def open_to_look(cls, database: Database) -> "Journal":
        """As `open`; on a full disk, to read what is there.

        Raises:
            ConfigurationError: it can't be opened.
        """
        try:
            return cls.open(database)
        except ConfigurationError as error:
            if not isinstance(error.__cause__, DiskFullError):
                raise
        return cls(open_database(database, read_only=True))

    def write(self, entry: JournalEntry) -> int:
        """Commit one batch in one transaction; returns the position of its first accepted payload.

        The other accepted ones follow it, and then the refused. Positions are assigned under the write lock: a reader
        that sees one sees all lower ones.

        Raises:
            JournalAheadError: nothing of it was committed.
            JournalUnavailableError: nothing of it was committed, or the answer to the commit was lost.
        """
        if entry.is_empty():
            return 0
        with writing(self.engine) as connection:
            last_position, counters = decided_by(connection)
            if entry.accepted and entry.tasks_counter not in {None, counters.get(TASKS, 0)}:
                raise JournalAheadError
            if last_position > entry.after and entry.senders() & set(decided_after(connection, entry.after)):
                raise JournalAheadError
            positions = count(last_position + 1)
            _insert_payloads(connection, list(map(_payload_row, entry.accepted, positions)))
            if entry.refused:
                connection.execute(insert(refused_payloads), list(map(_refused_row, entry.refused, positions)))
            _admit_invited(connection, entry.invited)
            if has_taken_name(connection, entry.devices):
                raise JournalAheadError
            for device in entry.devices:
                store_device(connection, device)
            for each in entry.invited:
                bind_password(connection, each.device.public_key, each.invitation)
            forget_pending(connection, entry.forgotten)
            for refused in entry.uninvited:
                note_refused_invitation(connection, refused.device or "", refused.detail)
            _count_rejections(connection, entry.rejections)
            for subject in entry.counted:
                count_up(connection, subject)
            return last_position + 1

    def count_rejections(self, counted: Rejections) -> None:
        """Count messages that turned out to be of no use after their batch was committed.

        Raises:
            JournalUnavailableError: nothing of it was committed.
        """
        with writing(self.engine) as connection:
            _count_rejections(connection, counted)

    def add_version(
        self,
        version: Version,
        *,
        kind: int,
        update_count: int,
        last_position: int,
        tasks_counter: int,
        seed: bytes | None = None,
        settles_staleness: bool = False,
    ) -> None:
        """Commit a version with the waiting payloads of `kind` that it holds: `update_count`, up to `last_position`.

        `tasks_counter` is that of the tasks (`change_counters`) when they were last read. `seed` is that of its noise,
        where it hides each device. Where it `settles_staleness`, the updates get that which they have in it
        (`aggregation.staleness`).

        Raises:
            TasksChangedError: they were changed since; nothing was committed.
            DatabaseSetBackError: the version before it is not there; nothing was committed.
            JournalUnavailableError: nothing of it was committed.
            RuntimeError: the journal has another number of them; another coordinator must be using this database.
        """
        with writing(self.engine) as connection:
            if change_counters_in(connection).get(TASKS, 0) != tasks_counter:
                raise TasksChangedError
            if (newest := newest_number_in(connection, version.task)) != version.number - 1:
                raise DatabaseSetBackError(
                    f"version {newest} of {version.task} is the newest; {version.number} was made"
                )
            insert_version(connection, version)
            if seed is not None:
                insert_seed(connection, version.task, version.number, seed)
            held = Aggregate(version.task, kind, version.number, b"")
            settled = {"staleness": newest - payloads.c.base_version} if settles_staleness else {}
            _hold(connection, held, settled, payload_count=update_count, last_position=last_position)

    def add_aggregate(self, aggregate: Aggregate, *, payload_count: int, last_position: int) -> None:
        """Commit the aggregate of a kind that makes no versions; else as `add_version`."""
        with writing(self.engine) as connection:
            insert_aggregate(connection, aggregate, payload_count=payload_count, last_position=last_position)

    def set_aside(self, reasons: Mapping[int, str]) -> None:
        """Let no aggregate hold the waiting payloads at these positions; the reasons are for people to read.

        Raises:
            JournalUnavailableError: nothing of it was committed.
        """
        with writing(self.engine) as connection:
            for position, reason in reasons.items():
                this = (payloads.c.position == position, WAITING)
                connection.execute(update(payloads).where(*this).values(set_aside=reason))

    def forget(self, task: str, allowed: Forgettable, after: Forgettable) -> None:
        """Drop the weights and envelopes that `allowed` says, as far as `after`, the last time's, had not said it.

        Raises:
            JournalUnavailableError: nothing of it was committed.
        """
        history = self.history(task)
        with writing(self.engine) as connection:
            forget_weights(connection, task, allowed, after)
            forget_envelopes(connection, task, history, allowed, after)


def following(connection: Connection, version: Version) -> Version:
    """A version that no buffer made: what says how the next one is made is as behind the one before it."""
    of_tempering = (versions.c.tempers_since, versions.c.tempers_until, versions.c.tempers_not_until)
    kept = select(versions.c.buffer_size, *of_tempering)
    before = (versions.c.task == version.task, versions.c.number == version.number - 1)
    return replace(version, **connection.execute(kept.where(*before)).one()._mapping)


def insert_version(connection: Connection, version: Version) -> None:
    """Insert one version."""
    connection.execute(insert(versions).values(asdict(version)))


def insert_aggregate(connection: Connection, aggregate: Aggregate, *, payload_count: int, last_position: int) -> None:
    """As `Journal.add_aggregate`, in a transaction that is open."""
    connection.execute(insert(aggregates).values(asdict(aggregate)))
    _hold(connection, aggregate, {}, payload_count=payload_count, last_position=last_position)


def _hold(
    connection: Connection, aggregate: Aggregate, more: Mapping[str, object], *, payload_count: int, last_position: int
) -> None:
    waiting = (
        payloads.c.task == aggregate.task,
        payloads.c.kind == aggregate.kind,
        WAITING,
        payloads.c.position <= last_position,
    )
    held = connection.execute(update(payloads).where(*waiting).values(aggregate=aggregate.number, **more))
    if held.rowcount != payload_count:
        raise RuntimeError(
            f"aggregate {aggregate.number} of {aggregate.task} should hold {payload_count} payloads, the journal has"
            f" {held.rowcount}: is another coordinator using this database?"
        )


_FOUND_LATER: Final = ("set_aside", "suspicion")
_PAYLOAD_COLUMNS: Final = tuple(column.name for column in payloads.columns if column.name not in _FOUND_LATER)


def _insert_payloads(connection: Connection, rows: list[tuple[Any, ...]]) -> None:
    # By the driver: SQLAlchemy would look at each value of each row, which takes longer than to store it.
    if rows:
        positional = connection.dialect.positional
        values = rows if positional else [dict(zip(_PAYLOAD_COLUMNS, row, strict=True)) for row in rows]
        connection.exec_driver_sql(_insertion(connection.dialect), values)


@cache
def _insertion(dialect: Dialect) -> str:
    return str(insert(payloads).compile(dialect=dialect, column_keys=_PAYLOAD_COLUMNS))


def _payload_row(accepted: Accepted, position: int) -> tuple[Any, ...]:
    """Its values in the order of `_PAYLOAD_COLUMNS`."""
    header = accepted.header
    return (
        position,
        accepted.device,
        header.sequence,
        accepted.envelope_digest,
        header.kind.decrypted.number,
        header.task,
        header.base_version,
        accepted.staleness,
        msgspec.json.encode(accepted.facts).decode(),
        accepted.envelope,
        accepted.held_by,
    )


def _refused_row(refused: Refused, position: int) -> dict[str, Any]:
    return {
        "position": position,
        "device": refused.device,
        "sequence": refused.burned_sequence,
        "digest": refused.envelope_digest,
        "reason": refused.reason.value,
        "detail": refused.detail,
    }


def _admit_invited(connection: Connection, enrolled: Sequence[Enrolled]) -> None:
    """Spend their invitations, and revoke the keys that they replace.

    Raises:
        JournalAheadError: an operator has withdrawn one.
    """
    for each in enrolled:
        if not spend_invitation(connection, each.invitation):
            raise JournalAheadError
        if each.replaced is not None:
            revoke_device(connection, each.replaced)


def _count_rejections(connection: Connection, counted: Rejections) -> None:
    for (reason, device), times in counted.items():
        same = and_(rejections.c.reason == reason.value, rejections.c.device == device)
        changed = connection.execute(update(rejections).where(same).values(count=rejections.c.count + times))
        if not changed.rowcount:
            connection.execute(insert(rejections).values(reason=reason.value, device=device, count=times))
