"""What the journal holds, read only: for restarts, and for whoever compares databases while the coordinator runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

from sqlalchemy import Engine, Row, func, select, union_all

from broker_coordinator.database import open_database, reading
from broker_coordinator.knowledge import Decided
from broker_coordinator.records import JournalledUpdate, Version
from broker_coordinator.schema import refused_updates, rejections, tasks, updates, versions
from fleet_protocol.errors import Reason


class JournalReader:
    """Reads a coordinator's database. Every method raises JournalUnavailableError where the database fails."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def open(cls, path: Path) -> "JournalReader":
        """Open the database of a coordinator, which may be running.

        Raises:
            ConfigurationError: there is none.
        """
        return cls(open_database(path, read_only=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self.engine.dispose()

    def bundles(self) -> dict[str, str]:
        """Every task that was ever served, with the SHA-256 of its `task.json`."""
        with reading(self.engine) as connection:
            return {row.name: row.bundle for row in connection.execute(select(tasks))}

    def updates(self, task: str | None = None) -> Iterator[JournalledUpdate]:
        """Accepted updates, in the order in which they were received."""
        query = select(updates).order_by(updates.c.position)
        yield from self._read_updates(query if task is None else query.where(updates.c.task == task))

    def waiting_updates(self, task: str) -> Iterator[JournalledUpdate]:
        """Those of `task` that no version holds yet."""
        query = select(updates).where(updates.c.task == task, updates.c.version.is_(None))
        yield from self._read_updates(query.order_by(updates.c.position))

    def held_updates(self, task: str) -> Iterator[JournalledUpdate]:
        """Those of `task` that a version holds."""
        query = select(updates).where(updates.c.task == task, updates.c.version.is_not(None))
        yield from self._read_updates(query.order_by(updates.c.position))

    def newest_held_updates(self, task: str) -> Iterator[JournalledUpdate]:
        """Per device, the newest of its updates that a version holds."""
        newest = (
            select(func.max(updates.c.position))
            .where(updates.c.task == task, updates.c.version.is_not(None))
            .group_by(updates.c.device)
        )
        yield from self._read_updates(select(updates).where(updates.c.position.in_(newest)))

    def versions(self, task: str, *, after: int = -1) -> Iterator[Version]:
        """The versions of a task with numbers above `after`, oldest first."""
        with reading(self.engine) as connection:
            query = select(versions).where(versions.c.task == task, versions.c.number > after)
            for row in connection.execution_options(yield_per=1).execute(query.order_by(versions.c.number)):
                yield _version(row)

    def last_versions(self, task: str, count: int, *, through: int | None = None) -> list[Version]:
        """At most `count` versions of a task, oldest first, the last of them number `through` or the newest."""
        query = select(versions).where(versions.c.task == task)
        query = query if through is None else query.where(versions.c.number <= through)
        with reading(self.engine) as connection:
            rows = connection.execute(query.order_by(versions.c.number.desc()).limit(count)).all()
            return [_version(row) for row in reversed(rows)]

    def newest_version(self, task: str) -> Version | None:
        """The version with the highest number."""
        found = self.last_versions(task, 1)
        return found[0] if found else None

    def weights_named(self, weights_hash: str) -> bytes | None:
        """The safetensors file with this SHA-256."""
        with reading(self.engine) as connection:
            return connection.scalar(select(versions.c.weights).where(versions.c.weights_hash == weights_hash))

    def weights_of(self, task: str, number: int) -> bytes | None:
        """The safetensors file of a version."""
        query = select(versions.c.weights).where(versions.c.task == task, versions.c.number == number)
        with reading(self.engine) as connection:
            return connection.scalar(query)

    def rejection_counts(self) -> dict[tuple[Reason, str], int]:
        """How many messages were refused, by reason and device; no device where the signature did not prove one."""
        with reading(self.engine) as connection:
            return {(Reason(reason), device): count for reason, device, count in connection.execute(select(rejections))}

    def decided(self, device: str, sequence: int) -> Decided | None:
        """The journalled outcome of an update."""
        accepted = select(updates.c.digest).where(updates.c.device == device, updates.c.sequence == sequence)
        refused = select(refused_updates).where(
            refused_updates.c.device == device, refused_updates.c.sequence == sequence
        )
        with reading(self.engine) as connection:
            if (digest := connection.scalar(accepted)) is not None:
                return Decided(digest)
            if row := connection.execute(refused).first():
                return Decided(row.digest, Reason(row.reason), row.detail)
            return None

    def highest_sequences(self) -> dict[str, int]:
        """Per device, the highest update number of which the outcome is journalled."""
        both = union_all(
            *(
                select(table.c.device, func.max(table.c.sequence).label("sequence")).group_by(table.c.device)
                for table in (updates, refused_updates)
            )
        ).subquery()
        query = select(both.c.device, func.max(both.c.sequence).label("highest")).group_by(both.c.device)
        with reading(self.engine) as connection:
            return {row.device: row.highest for row in connection.execute(query)}

    def last_position(self) -> int:
        """The position of the update that was received last; 0 where there is none."""
        with reading(self.engine) as connection:
            return connection.scalar(select(func.max(updates.c.position))) or 0

    def _read_updates(self, query: object) -> Iterator[JournalledUpdate]:
        with reading(self.engine) as connection:
            for row in connection.execution_options(yield_per=100).execute(query):  # type: ignore[call-overload]
                yield JournalledUpdate(**row._mapping)


def _version(row: Row[tuple[str, int, bytes, str, bytes, bytes]]) -> Version:
    return Version(**row._mapping)
