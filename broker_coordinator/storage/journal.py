"""The journal's writing side: what arrived together is committed together, and a version is one transaction."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any, Final

from sqlalchemy import Connection, and_, insert, update

from broker_coordinator.admission.decisions import Accepted, Refused
from broker_coordinator.admission.fleet_view import Device
from broker_coordinator.aggregation.retention import Forgettable
from broker_coordinator.storage.change_counters import TASKS, change_counters_in
from broker_coordinator.storage.database import Database, open_database, writing
from broker_coordinator.storage.device_registry import store_device
from broker_coordinator.storage.journal_reader import JournalReader
from broker_coordinator.storage.records import Version
from broker_coordinator.storage.schema import refused_updates, rejections, updates, versions
from fleet_protocol.errors import Reason


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """What one batch of messages adds to the journal."""

    accepted: list[Accepted] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    rejections: Counter[tuple[Reason, str]] = field(default_factory=Counter)

    def is_empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not (self.accepted or self.refused or self.devices or self.rejections)


class TasksChangedError(Exception):
    """An operator changed a task since it was read: read it again."""


class Journal(JournalReader):
    """The database of a running coordinator, its only writer besides operators' commands."""

    @classmethod
    def open(cls, database: Database) -> "Journal":
        """Open the database, and make it where it is missing.

        Raises:
            ConfigurationError: it can't be opened.
        """
        return cls(open_database(database))

    def write(self, entry: JournalEntry, first_position: int) -> None:
        """Commit one batch in one transaction; its accepted updates are numbered from `first_position`.

        Raises:
            JournalUnavailableError: nothing of it was committed.
        """
        if entry.is_empty():
            return
        with writing(self.engine) as connection:
            _insert_updates(connection, list(map(_update_row, entry.accepted, count(first_position))))
            if entry.refused:
                connection.execute(insert(refused_updates), list(map(_refused_row, entry.refused)))
            for device in entry.devices:
                store_device(connection, device)
            for (reason, device_name), times in entry.rejections.items():
                _count_rejections(connection, reason, device_name, times)

    def add_version(self, version: Version, *, holds: int, last_position: int, revision: int) -> None:
        """Commit a version together with which updates it holds: the `holds` waiting ones up to `last_position`.

        `revision` is that of the tasks (`change_counters`) when they were last read.

        Raises:
            TasksChangedError: they were changed since; nothing was committed.
            JournalUnavailableError: nothing of it was committed.
            RuntimeError: the journal has another number of them; another coordinator must be using this database.
        """
        with writing(self.engine) as connection:
            if change_counters_in(connection).get(TASKS, 0) != revision:
                raise TasksChangedError
            insert_version(connection, version)
            held = connection.execute(
                update(updates)
                .where(
                    updates.c.task == version.task,
                    updates.c.version.is_(None),
                    updates.c.position <= last_position,
                )
                .values(version=version.number)
            )
            if held.rowcount != holds:
                raise RuntimeError(
                    f"version {version.number} of {version.task} should hold {holds} updates, the journal has"
                    f" {held.rowcount}: is another coordinator using this database?"
                )

    def forget(self, task: str, allowed: Forgettable, after: Forgettable) -> None:
        """Drop the weights and envelopes that `allowed` says, as far as `after`, the last time's, had not said it.

        Raises:
            JournalUnavailableError: nothing of it was committed.
        """
        number = versions.c.number
        old_weights = [
            versions.c.task == task,
            number.between(after.weights_through + 1, allowed.weights_through),
            number > 0,
            versions.c.restored.is_(None),
            *([number % allowed.every != 0] if allowed.every else []),
        ]
        old_envelopes = updates.c.version.between(after.envelopes_through + 1, allowed.envelopes_through)
        with writing(self.engine) as connection:
            connection.execute(update(versions).where(*old_weights).values(weights=None, moments=None, unrounded=b""))
            connection.execute(update(updates).where(updates.c.task == task, old_envelopes).values(envelope=None))


def insert_version(connection: Connection, version: Version) -> None:
    """Insert one version."""
    connection.execute(insert(versions).values(asdict(version)))


_UPDATE_COLUMNS: Final = tuple(column.name for column in updates.columns if column is not updates.c.version)


def _insert_updates(connection: Connection, rows: list[tuple[Any, ...]]) -> None:
    # By the driver: SQLAlchemy would look at each value of each row, which takes longer than to store it.
    if rows:
        compiled = insert(updates).compile(dialect=connection.dialect, column_keys=_UPDATE_COLUMNS)
        positional = connection.dialect.positional
        values = rows if positional else [dict(zip(_UPDATE_COLUMNS, row, strict=True)) for row in rows]
        connection.exec_driver_sql(str(compiled), values)


def _update_row(accepted: Accepted, position: int) -> tuple[Any, ...]:
    """Its values in the order of `_UPDATE_COLUMNS`."""
    header, update = accepted.header, accepted.update
    return (
        position,
        accepted.device,
        header.sequence,
        accepted.envelope_digest,
        header.task,
        header.base_version,
        update.staleness,
        update.samples,
        accepted.loss,
        accepted.norm,
        accepted.envelope,
    )


def _refused_row(refused: Refused) -> dict[str, Any]:
    return {
        "device": refused.device,
        "sequence": refused.burned_sequence,
        "digest": refused.envelope_digest,
        "reason": refused.reason.value,
        "detail": refused.detail,
    }


def _count_rejections(connection: Connection, reason: Reason, device: str, count: int) -> None:
    same = and_(rejections.c.reason == reason.value, rejections.c.device == device)
    counted = connection.execute(update(rejections).where(same).values(count=rejections.c.count + count))
    if not counted.rowcount:
        connection.execute(insert(rejections).values(reason=reason.value, device=device, count=count))
