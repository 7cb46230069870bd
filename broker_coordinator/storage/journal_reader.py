"""Reads the journal: for restarts, and for programs that read it while the coordinator runs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from sqlalchemy import (
    ColumnElement,
    Engine,
    Row,
    Text,
    cast,
    false,
    func,
    or_,
    select,
    tuple_,
)

from broker_coordinator.admission.fleet_view import Decided
from broker_coordinator.aggregation.lineage import Departure, History, Lineage
from broker_coordinator.aggregation.means import mean_of
from broker_coordinator.aggregation.version import Version
from broker_coordinator.storage.database import Database, open_database, reading
from broker_coordinator.storage.records import (
    Aggregate,
    Evaluation,
    JournalledPayload,
    PayloadSetAside,
    VersionSummary,
    declared_loss,
)
from broker_coordinator.storage.schema import (
    WAITING,
    aggregates,
    departures,
    evaluations,
    payloads,
    refused_payloads,
    rejections,
    tasks,
    versions,
)
from broker_coordinator.storage.standing import last_position_in
from broker_coordinator.storage.task_conditions import (
    first_version,
    held_from_first,
    kept,
    newest_number_in,
    newest_positions,
    of_bundle,
    set_aside_of,
    still_there,
    trained_from_first,
    updates_of,
)
from fleet_protocol.errors import Reason
from fleet_protocol.limits import MAX_SEQUENCE

POSITIONS_PER_QUERY = 500
"""Well below the number of parameters that any database takes."""


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

    def bundles(self) -> dict[str, str]:
        """Every task that was ever served, with the SHA-256 of its last `task.json`."""
        with reading(self.engine) as connection:
            return {row.name: row.bundle for row in connection.execute(select(tasks))}

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

    def updates_through(self, task: str, version: int, left: Mapping[str, int]) -> Iterator[JournalledPayload]:
        """Those that `version` or an older one holds, without those of devices that have `left` (`Lineage`)."""
        of_bundle = (*updates_of(task), held_from_first(task))
        yield from self._read_payloads(*of_bundle, payloads.c.aggregate <= version, *still_there(left))

    def newest_updates_through(self, task: str, lineage: Lineage) -> Iterator[JournalledPayload]:
        """Per device, the newest of its updates in a lineage."""
        yield from self._read_payloads(payloads.c.position.in_(newest_positions(task, lineage)))

    def holds_updates_of(self, task: str, device: str) -> bool:
        """Whether any version holds an update of a device."""
        return self.first_holder(task, device, self.history(task).spans(MAX_SEQUENCE)) is not None

    def first_holder(self, task: str, device: str, spans: Sequence[tuple[int, int]]) -> int | None:
        """The first version in `spans`, of first and last ones, that holds an update of a device."""
        held = or_(false(), *(payloads.c.aggregate.between(first, last) for first, last in spans))
        query = select(func.min(payloads.c.aggregate)).where(*updates_of(task), payloads.c.device == device, held)
        with reading(self.engine) as connection:
            first: int | None = connection.scalar(query)
            return first

    def history(self, task: str) -> History:
        """What operators did to a task."""
        rolled_back = select(versions.c.number, versions.c.restored, versions.c.step)
        rolled_back = rolled_back.where(*of_bundle(task), versions.c.restored.is_not(None))
        query = select(departures.c.device, departures.c.version, departures.c.replayed_from)
        with reading(self.engine) as connection:
            rows = connection.execute(query.where(departures.c.task == task).order_by(departures.c.version))
            left = [Departure(**row._mapping) for row in rows]
            first = connection.scalar(select(first_version(task))) or 0
            made = connection.execute(rolled_back).all()
        rollbacks = {row.number: row.restored for row in made}
        return History(rollbacks, left, first, {row.number: row.step for row in made})

    def at_positions(self, positions: Sequence[int]) -> Iterator[JournalledPayload]:
        """Accepted payloads by their place in the journal, oldest first."""
        for begin in range(0, len(positions), POSITIONS_PER_QUERY):
            some = positions[begin : begin + POSITIONS_PER_QUERY]
            yield from self._read_payloads(payloads.c.position.in_(some))

    def newest_aggregate(self, task: str, kind: int) -> Aggregate:
        """The last one of a kind that makes no versions; number 0 where there is none."""
        query = select(aggregates).where(aggregates.c.task == task, aggregates.c.kind == kind)
        with reading(self.engine) as connection:
            row = connection.execute(query.order_by(aggregates.c.number.desc()).limit(1)).first()
            return Aggregate(**row._mapping) if row else Aggregate(task, kind, 0, b"")

    def newest_held(self, task: str, after: int) -> dict[str, int]:
        """By device, the newest version behind `after` that holds an update of it."""
        query = select(payloads.c.device, func.max(payloads.c.aggregate).label("newest"))
        query = query.where(*updates_of(task), payloads.c.aggregate > after).group_by(payloads.c.device)
        with reading(self.engine) as connection:
            return {row.device: row.newest for row in connection.execute(query)}

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

    def version_summaries(self, task: str, count: int) -> list[VersionSummary]:
        """The last `count` versions, oldest first, with what their updates say."""
        query = select(
            versions.c.number,
            versions.c.weights_hash,
            versions.c.restored,
            versions.c.weights.is_not(None).label("kept"),
            versions.c.step,
        )
        query = query.where(versions.c.task == task).order_by(versions.c.number.desc()).limit(count)
        found = self.evaluations(task)
        with reading(self.engine) as connection:
            rows = list(reversed(connection.execute(query).all()))
            held = select(payloads.c.kind, payloads.c.aggregate, payloads.c.staleness, _FACTS)
            held = held.where(*updates_of(task), payloads.c.aggregate >= (rows[0].number if rows else 0))
            updates: dict[int, list[Row[Any]]] = {}
            for row in connection.execute(held):
                updates.setdefault(row.aggregate, []).append(row)
        return [_summary(row, updates.get(row.number, []), found.get(row.number)) for row in rows]

    def evaluations(self, task: str) -> dict[int, Evaluation]:
        """What is known of versions on held-out samples, by version."""
        query = select(evaluations.c.version, evaluations.c.samples, evaluations.c.loss, evaluations.c.accuracy)
        with reading(self.engine) as connection:
            rows = connection.execute(query.where(evaluations.c.task == task).order_by(evaluations.c.version))
            return {row.version: Evaluation(**row._mapping) for row in rows}

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
        accepted = select(payloads.c.digest).where(payloads.c.device == device, payloads.c.sequence == sequence)
        refused = select(refused_payloads).where(
            refused_payloads.c.device == device, refused_payloads.c.sequence == sequence
        )
        with reading(self.engine) as connection:
            if (digest := connection.scalar(accepted)) is not None:
                return Decided(digest)
            if row := connection.execute(refused).first():
                return Decided(row.digest, Reason(row.reason), row.detail)
            return None

    def rejections_of(self, device: str) -> dict[Reason, int]:
        """How many of a device's own messages were refused, by reason; of "", those that prove no device."""
        query = select(rejections.c.reason, rejections.c.count).where(rejections.c.device == device)
        with reading(self.engine) as connection:
            return {Reason(reason): count for reason, count in connection.execute(query)}

    def update_counts(self, task: str) -> tuple[int, int]:
        """How many updates of a task were accepted, and how many of them wait for the next version."""
        query = select(func.count(), func.count().filter(WAITING)).where(*updates_of(task))
        with reading(self.engine) as connection:
            accepted, waiting = connection.execute(query).one()
            return accepted, waiting

    def last_outcomes(self, task: str, count: int) -> tuple[int, dict[Reason, int]]:
        """Of the last `count` outcomes in the journal: how many payloads of a task were accepted, and how many of any
        task were refused, by reason.
        """
        with reading(self.engine) as connection:
            after = last_position_in(connection) - count
            accepted = select(func.count()).where(payloads.c.task == task, payloads.c.position > after)
            refused = select(refused_payloads.c.reason, func.count().label("number"))
            refused = refused.where(refused_payloads.c.position > after).group_by(refused_payloads.c.reason)
            counts = {Reason(row.reason): row.number for row in connection.execute(refused)}
            return connection.scalar(accepted) or 0, counts

    def set_aside_count(self, task: str) -> int:
        """How many payloads of a task, of any kind, are set aside."""
        with reading(self.engine) as connection:
            return connection.scalar(select(func.count()).where(*set_aside_of(task))) or 0

    def payloads_set_aside(self, task: str, count: int) -> list[PayloadSetAside]:
        """The last `count` payloads of a task that are set aside, oldest first."""
        columns = (payloads.c.device, payloads.c.sequence, payloads.c.kind, payloads.c.set_aside.label("reason"))
        query = select(*columns).where(*set_aside_of(task)).order_by(payloads.c.position.desc()).limit(count)
        with reading(self.engine) as connection:
            return [PayloadSetAside(**row._mapping) for row in reversed(connection.execute(query).all())]

    def newest_applied(self, task: str, kind: int) -> JournalledPayload | None:
        """The last payload of a kind, for the task's bundle, that an aggregate holds and whose envelope is kept."""
        of_kind = (payloads.c.task == task, payloads.c.kind == kind, trained_from_first(task))
        applied = (payloads.c.aggregate.is_not(None), payloads.c.envelope.is_not(None))
        newest = select(func.max(payloads.c.position)).where(*of_kind, *applied).scalar_subquery()
        return next(self._read_payloads(payloads.c.position == newest), None)

    def accepted_counts(self, device: str) -> dict[str, int]:
        """How many payloads of a device were accepted, by task."""
        query = select(payloads.c.task, func.count().label("number")).where(payloads.c.device == device)
        with reading(self.engine) as connection:
            return {row.task: row.number for row in connection.execute(query.group_by(payloads.c.task))}

    def last_facts(self, task: str, kind: int, devices: int) -> list[tuple[str, str]]:
        """Of the last `devices` that had a payload of a kind accepted for the task's bundle: each with the facts of its
        last one, oldest first. Facts are JSON of the consumer's struct.
        """
        of_kind = (payloads.c.task == task, payloads.c.kind == kind, trained_from_first(task))
        newest = select(func.max(payloads.c.position).label("position")).where(*of_kind).group_by(payloads.c.device)
        last = newest.order_by(func.max(payloads.c.position).desc()).limit(devices).subquery()
        query = select(payloads.c.device, _FACTS).join(last, payloads.c.position == last.c.position)
        with reading(self.engine) as connection:
            return [(row.device, row.facts) for row in connection.execute(query.order_by(payloads.c.position))]

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


_FACTS = cast(payloads.c.facts, Text).label("facts")
_PAYLOADS = select(_FACTS, *(column for column in payloads.columns if column is not payloads.c.facts))


def _version(row: Row[Any]) -> Version:
    return Version(**row._mapping)


def _summary(row: Row[Any], updates: Sequence[Row[Any]], evaluation: Evaluation | None) -> VersionSummary:
    losses = [loss for update in updates if (loss := declared_loss(update.kind, update.facts)) is not None]
    return VersionSummary(
        row.number,
        row.weights_hash,
        row.restored,
        bool(row.kept),
        row.step,
        len(updates),
        mean_of(losses) if losses else None,
        mean_of(update.staleness for update in updates) if updates else None,
        evaluation,
    )
