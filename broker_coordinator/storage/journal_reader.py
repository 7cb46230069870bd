"""Reads the journal: for restarts, and for programs that read it while the coordinator runs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from sqlalchemy import (
    ColumnElement,
    Engine,
    Row,
    false,
    func,
    or_,
    select,
    tuple_,
)

from broker_coordinator.admission.fleet_view import Decided, decided_of
from broker_coordinator.aggregation.lineage import History, Lineage
from broker_coordinator.aggregation.version import Version
from broker_coordinator.consumers.masked_update import SumOfMasks
from broker_coordinator.storage.database import Database, open_database, reading
from broker_coordinator.storage.overview import Overview
from broker_coordinator.storage.payload_runs import read_runs, runs_of
from broker_coordinator.storage.records import (
    Aggregate,
    JournalledPayload,
)
from broker_coordinator.storage.schema import (
    FACTS,
    aggregates,
    cohorts,
    payloads,
    refused_payloads,
    tasks,
    versions,
)
from broker_coordinator.storage.task_conditions import (
    held_from_first,
    kept,
    newest_number_in,
    newest_positions,
    of_bundle,
    still_there,
    trained_from_first,
    updates_of,
)
from broker_coordinator.storage.task_history import history_of
from fleet_protocol.errors import Reason
from fleet_protocol.kinds import KINDS, Signed, decode_payload
from fleet_protocol.limits import MAX_SEQUENCE
from secure_aggregation.messages import CohortManifest, CohortSet
from secure_aggregation.signatures import read_unverified

POSITIONS_PER_QUERY = 500
"""Well below the number of parameters that any database takes."""

MOST_RUNS = 10
"""Of positions without a gap, among so many: batches of an intake are runs."""


class JournalReader:
    """Reads a coordinator's database. Every method raises JournalUnavailableError where the database fails.

    An update is here a payload of the kind that its task's versions are made from.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def open(cls, database: Database) -> "JournalReader":
        """Open the database of a coordinator, which may be running.

        Raises:
            ConfigurationError: there is none.
        """
        return cls(open_database(database, read_only=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()

    @property
    def overview(self) -> Overview:
        """What operators are shown."""
        return Overview(self.engine)

    def payloads(self, task: str | None = None) -> Iterator[JournalledPayload]:
        """Accepted payloads of all kinds, in the order in which they were received."""
        yield from self._read_payloads(*([] if task is None else [payloads.c.task == task]))

    def updates(self, task: str | None = None) -> Iterator[JournalledPayload]:
        """Accepted updates, likewise."""
        of_all_tasks = tuple_(payloads.c.task, payloads.c.kind).in_(select(tasks.c.name, tasks.c.version_kind))
        yield from self._read_payloads(*([of_all_tasks] if task is None else updates_of(task)))

    def held_updates(self, task: str, version: int) -> Iterator[JournalledPayload]:
        """Those of `task` that one version holds."""
        yield from self._read_payloads(*updates_of(task), payloads.c.aggregate == version)

    def sum_of_masks(self, task: str, version: int) -> SumOfMasks | None:
        """What turned the masked updates of a version into its sum; None of a version that has none, or none any
        more (`aggregation.retention`).
        """
        row_of = select(cohorts).where(cohorts.c.task == task, cohorts.c.version == version)
        with reading(self.engine) as connection:
            row = connection.execute(row_of).first()
        if row is None or row.masks is None:
            return None
        manifest = read_unverified(decode_payload(row.manifest, Signed), CohortManifest)
        return SumOfMasks(manifest, read_unverified(decode_payload(row.members, Signed), CohortSet), row.masks)

    def updates_through(self, task: str, version: int, left: Mapping[str, int]) -> Iterator[JournalledPayload]:
        """Those that `version` or an older one holds, without those of devices that have `left` (`Lineage`)."""
        of_bundle = (*updates_of(task), held_from_first(task))
        yield from self._read_payloads(*of_bundle, payloads.c.aggregate <= version, *still_there(left))

    def newest_updates_through(self, task: str, lineage: Lineage) -> Iterator[JournalledPayload]:
        """Per device, the newest of its updates in a lineage."""
        yield from self._read_payloads(payloads.c.position.in_(newest_positions(task, lineage)))

    def holds_updates_of(self, task: str, device: str) -> bool:
        """Whether any version holds an update of a device."""
        held = _held_in(self.history(task).spans(MAX_SEQUENCE))
        query = select(payloads.c.position).where(*updates_of(task), payloads.c.device == device, held).limit(1)
        with reading(self.engine) as connection:
            return connection.scalar(query) is not None

    def held_counts(self, task: str, spans: Sequence[tuple[int, int]]) -> list[tuple[str, int, int]]:
        """By device and version, for those in `spans`, how many updates a version holds."""
        query = select(payloads.c.device, payloads.c.aggregate, func.count()).where(*updates_of(task), _held_in(spans))
        with reading(self.engine) as connection:
            rows = connection.execute(query.group_by(payloads.c.device, payloads.c.aggregate))
            return [(device, version, count) for device, version, count in rows]

    def holds_payload_of(self, task: str, device: str, kind: int, first: int, last: int) -> bool:
        """Whether one of these versions, which another bundle of the task may have had, holds a device's payload."""
        held = (payloads.c.task == task, payloads.c.kind == kind, payloads.c.aggregate.between(first, last))
        query = select(payloads.c.position).where(*held, payloads.c.device == device).limit(1)
        with reading(self.engine) as connection:
            return connection.scalar(query) is not None

    def history(self, task: str) -> History:
        """What operators did to a task."""
        return history_of(self.engine, task)

    def at_positions(self, positions: Sequence[int]) -> Iterator[JournalledPayload]:
        """Accepted payloads by their places in the journal, which are in order."""
        for begin in range(0, len(positions), POSITIONS_PER_QUERY):
            some = positions[begin : begin + POSITIONS_PER_QUERY]
            if len(runs := runs_of(some)) <= MOST_RUNS:
                yield from read_runs(self.engine, runs)
            else:
                yield from self._read_payloads(payloads.c.position.in_(some))

    def newest_aggregate(self, task: str, kind: int) -> Aggregate:
        """The last one of a kind that makes no versions; number 0 where there is none."""
        query = select(aggregates).where(aggregates.c.task == task, aggregates.c.kind == kind)
        with reading(self.engine) as connection:
            row = connection.execute(query.order_by(aggregates.c.number.desc()).limit(1)).first()
            return Aggregate(**row._mapping) if row else Aggregate(task, kind, 0, b"")

    def newest_held(self, task: str, after: int) -> dict[str, tuple[int, int]]:
        """By device, the newest version behind `after` that holds an update of it, and the one that this began with."""
        newest = func.max(payloads.c.aggregate).label("newest"), func.max(payloads.c.base_version).label("began_with")
        query = select(payloads.c.device, *newest)
        query = query.where(*updates_of(task), payloads.c.aggregate > after).group_by(payloads.c.device)
        with reading(self.engine) as connection:
            return {row.device: (row.newest, row.began_with) for row in connection.execute(query)}

    def versions(self, task: str, *, after: int = -1, before: int = MAX_SEQUENCE) -> Iterator[Version]:
        """The versions of a task's bundle that are kept, with numbers between `after` and `before`, oldest first."""
        with reading(self.engine) as connection:
            query = kept(task).where(versions.c.number > after, versions.c.number < before)
            for row in connection.execution_options(yield_per=1).execute(query.order_by(versions.c.number)):
                yield _version(row)

    def version(self, task: str, number: int) -> Version | None:
        """One version, if it is of the task's bundle and its weights are kept."""
        with reading(self.engine) as connection:
            row = connection.execute(kept(task).where(versions.c.number == number)).first()
            return _version(row) if row else None

    def last_versions(self, task: str, count: int) -> list[Version]:
        """At most `count` kept versions of a task's bundle, the newest ones, oldest first."""
        with reading(self.engine) as connection:
            query = kept(task).order_by(versions.c.number.desc())
            return [_version(row) for row in reversed(connection.execute(query.limit(count)).all())]

    def kept_numbers(self, task: str) -> list[int]:
        """The versions of a task's bundle of which the weights are kept, oldest first."""
        query = select(versions.c.number).where(*of_bundle(task), versions.c.weights.is_not(None))
        with reading(self.engine) as connection:
            return list(connection.scalars(query.order_by(versions.c.number)))

    def newest_number(self, task: str) -> int:
        """The number of the newest version; 0 for a task without versions."""
        with reading(self.engine) as connection:
            return newest_number_in(connection, task)

    def first_number(self, task: str) -> int:
        """The number of the version that is the own one of the task's bundle."""
        with reading(self.engine) as connection:
            return connection.scalar(select(tasks.c.first_version).where(tasks.c.name == task)) or 0

    def newest_version(self, task: str) -> Version | None:
        """The version with the highest number."""
        found = self.last_versions(task, 1)
        return found[0] if found else None

    def weights_named(self, weights_hash: str) -> bytes | None:
        """The safetensors file with this SHA-256."""
        kept = select(versions.c.weights).where(
            versions.c.weights_hash == weights_hash, versions.c.weights.is_not(None)
        )
        with reading(self.engine) as connection:
            return connection.scalar(kept.limit(1))

    def weights_of(self, task: str, number: int) -> bytes | None:
        """The safetensors file of a version of the task's bundle."""
        query = select(versions.c.weights).where(*of_bundle(task), versions.c.number == number)
        with reading(self.engine) as connection:
            return connection.scalar(query)

    def decided(self, device: str, sequence: int) -> Decided | None:
        """The journalled outcome of a payload."""
        accepted = select(payloads.c.digest, payloads.c.kind, payloads.c.aggregate, payloads.c.set_aside).where(
            payloads.c.device == device, payloads.c.sequence == sequence
        )
        refused = select(refused_payloads).where(
            refused_payloads.c.device == device, refused_payloads.c.sequence == sequence
        )
        with reading(self.engine) as connection:
            if (found := connection.execute(accepted).first()) is not None:
                if (kind := KINDS.get(found.kind)) is None:
                    return Decided(found.digest)
                return decided_of(kind, found.digest, held=found.aggregate is not None, set_aside=found.set_aside)
            if row := connection.execute(refused).first():
                return Decided(row.digest, Reason(row.reason), row.detail)
            return None

    def newest_applied(self, task: str, kind: int) -> JournalledPayload | None:
        """The last payload of a kind, for the task's bundle, that an aggregate holds and whose envelope is kept."""
        of_kind = (payloads.c.task == task, payloads.c.kind == kind, trained_from_first(task))
        applied = (payloads.c.aggregate.is_not(None), payloads.c.envelope.is_not(None))
        newest = select(func.max(payloads.c.position)).where(*of_kind, *applied).scalar_subquery()
        return next(self._read_payloads(payloads.c.position == newest), None)

    def last_facts(self, task: str, kind: int, devices: int) -> list[tuple[str, str]]:
        """Of the last `devices` that had a payload of a kind accepted for the task's bundle: each with the facts of its
        last one, oldest first. Facts are JSON of the consumer's struct.
        """
        of_kind = (payloads.c.task == task, payloads.c.kind == kind, trained_from_first(task))
        newest = select(func.max(payloads.c.position).label("position")).where(*of_kind).group_by(payloads.c.device)
        last = newest.order_by(func.max(payloads.c.position).desc()).limit(devices).subquery()
        query = select(payloads.c.device, FACTS).join(last, payloads.c.position == last.c.position)
        with reading(self.engine) as connection:
            return [(row.device, row.facts) for row in connection.execute(query.order_by(payloads.c.position))]

    def newest_of_devices(self, task: str, kind: int) -> Iterator[JournalledPayload]:
        """Per device, its last payload of a kind that makes no versions, for the task's bundle; oldest first."""
        usable = (payloads.c.envelope.is_not(None), payloads.c.set_aside.is_(None))
        of_kind = (payloads.c.task == task, payloads.c.kind == kind, trained_from_first(task), *usable)
        newest = select(func.max(payloads.c.position)).where(*of_kind).group_by(payloads.c.device)
        yield from self._read_payloads(payloads.c.position.in_(newest))

    def last_devices(self, task: str, count: int) -> tuple[str, ...]:
        """The devices that the last accepted updates of a task are of, oldest first."""
        query = select(payloads.c.device).where(*updates_of(task)).order_by(payloads.c.position.desc()).limit(count)
        with reading(self.engine) as connection:
            return tuple(reversed(connection.scalars(query).all()))

    def _read_payloads(self, *conditions: ColumnElement[bool]) -> Iterator[JournalledPayload]:
        query = _PAYLOADS.where(*conditions).order_by(payloads.c.position)
        with reading(self.engine) as connection:
            for row in connection.execution_options(yield_per=100).execute(query):
                yield JournalledPayload(**row._mapping)


_PAYLOADS = select(FACTS, *(column for column in payloads.columns if column is not payloads.c.facts))


def _version(row: Row[Any]) -> Version:
    return Version(**row._mapping)


def _held_in(spans: Sequence[tuple[int, int]]) -> ColumnElement[bool]:
    """Of a payload: a version in one of these spans, of first and last ones, holds it."""
    return or_(false(), *(payloads.c.aggregate.between(first, last) for first, last in spans))
