"""The journal's writing side: what arrived together is committed together, and a version is one transaction."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, and_, insert, update

from broker_coordinator.database import open_database, writing
from broker_coordinator.decisions import Accepted, Refused
from broker_coordinator.device_registry import store_device
from broker_coordinator.journal_reader import JournalReader
from broker_coordinator.knowledge import Device
from broker_coordinator.records import Version
from broker_coordinator.schema import refused_updates, rejections, tasks, updates, versions
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


class Journal(JournalReader):
    """The database of a running coordinator, its only writer besides `broker-coordinator devices`."""

    @classmethod
    def open(cls, path: Path) -> "Journal":
        """Open the database, and make it where it is missing.

        Raises:
            ConfigurationError: it can't be opened.
        """
        return cls(open_database(path))

    def write(self, entry: JournalEntry, first_position: int) -> None:
        """Commit one batch in one transaction; its accepted updates are numbered from `first_position`.

        Raises:
            JournalUnavailableError: nothing of it was committed.
        """
        if entry.is_empty():
            return
        with writing(self.engine) as connection:
            _insert(connection, updates, map(_update_row, entry.accepted, range(first_position, 2**63)))
            _insert(connection, refused_updates, map(_refused_row, entry.refused))
            for device in entry.devices:
                store_device(connection, device)
            for (reason, device_name), count in entry.rejections.items():
                _count_rejections(connection, reason, device_name, count)

    def add_task(self, bundle: str, first_version: Version) -> None:
        """Commit a task that was not served before, with the weights of its bundle."""
        with writing(self.engine) as connection:
            connection.execute(insert(tasks).values(name=first_version.task, bundle=bundle))
            connection.execute(insert(versions).values(_version_row(first_version)))

    def add_version(self, version: Version, *, holds: int, last_position: int) -> None:
        """Commit a version together with which updates it holds: the `holds` waiting ones up to `last_position`.

        Raises:
            JournalUnavailableError: nothing of it was committed.
            RuntimeError: the journal has another number of them; another coordinator must be using this database.
        """
        with writing(self.engine) as connection:
            connection.execute(insert(versions).values(_version_row(version)))
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


def _insert(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    if listed := list(rows):
        connection.execute(insert(table), listed)


def _update_row(accepted: Accepted, position: int) -> dict[str, Any]:
    return {
        "position": position,
        "device": accepted.device,
        "sequence": accepted.header.sequence,
        "digest": accepted.envelope_digest,
        "task": accepted.header.task,
        "base_version": accepted.header.base_version,
        "staleness": accepted.update.staleness,
        "samples": accepted.update.samples,
        "envelope": accepted.envelope,
    }


def _refused_row(refused: Refused) -> dict[str, Any]:
    return {
        "device": refused.device,
        "sequence": refused.burned_sequence,
        "digest": refused.envelope_digest,
        "reason": refused.reason.value,
        "detail": refused.detail,
    }


def _version_row(version: Version) -> dict[str, Any]:
    return {
        "task": version.task,
        "number": version.number,
        "weights": version.weights,
        "weights_hash": version.weights_hash,
        "velocity": version.velocity,
        "unrounded": version.unrounded,
    }


def _count_rejections(connection: Connection, reason: Reason, device: str, count: int) -> None:
    same = and_(rejections.c.reason == reason.value, rejections.c.device == device)
    counted = connection.execute(update(rejections).where(same).values(count=rejections.c.count + count))
    if not counted.rowcount:
        connection.execute(insert(rejections).values(reason=reason.value, device=device, count=count))
