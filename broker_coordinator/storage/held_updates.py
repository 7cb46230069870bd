"""Suspicious updates in the journal: held, released or dropped, each in one transaction; and what they are judged by.

An update that is held is set aside with `HELD_IN_QUARANTINE`; a `suspicion` stays with it, whatever becomes of it. One
that is released gets the next position of the journal, as if it had come now: so versions go on to hold updates in
journal order, and whoever makes them finds it behind all that they have read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, and_, func, or_, select, update

from broker_coordinator.aggregation.lineage import Lineage
from broker_coordinator.aggregation.quarantine import Suspicion
from broker_coordinator.aggregation.staleness import oldest_that_counts, staleness_at
from broker_coordinator.aggregation.verdicts import VERSIONS_LOOKED_AT, Verdicts
from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.schema import FACTS, HELD, HELD_IN_QUARANTINE, WAITING, payloads
from broker_coordinator.storage.standing import last_position_in
from broker_coordinator.storage.stored_tasks import served_task
from broker_coordinator.storage.task_conditions import (
    last_senders,
    newest_number_in,
    trained_from_first,
    updates_of,
    version_kind,
)
from fleet_protocol.aggregation_plan import AggregationPlan
from fleet_protocol.errors import ConfigurationError

OUTDATED = "dropped from quarantine as too stale"
DROPPED = "dropped from quarantine by an operator"


@dataclass(frozen=True, slots=True)
class HeldUpdate:
    """One that is, or was until now, held: `staleness` is what it has now; `outcome` says what has become of it."""

    device: str
    sequence: int
    staleness: int
    outcome: str
    suspicion: str


@dataclass(frozen=True, slots=True)
class SuspectedUpdate:
    """One that was found suspicious and waits, or counts in a `version`; how often it `counts`, None where its facts
    are damaged.
    """

    device: str
    sequence: int
    version: int | None
    counts: float | None
    suspicion: str


class _JudgedFacts(msgspec.Struct):
    """Of the facts of an update, its norm as it came, and how often it counts."""

    norm: float
    tempered: float = 1.0


def hold(engine: Engine, suspicions: Mapping[int, Suspicion], facts: Mapping[int, object]) -> None:
    """Note, by position, what is suspicious of what waits, and hold what shall be held; `facts` that changed with it.

    Raises:
        JournalUnavailableError: nothing of it was committed.
    """
    with writing(engine) as connection:
        for position, each in suspicions.items():
            changed = {"suspicion": each.reason, "set_aside": HELD_IN_QUARANTINE if each.is_held else None}
            more = {"facts": facts[position]} if position in facts else {}
            connection.execute(update(payloads).where(payloads.c.position == position, WAITING).values(changed | more))


def drop_outdated(engine: Engine, task: str, oldest: int) -> int:
    """Drop what is held and began before the version `oldest`, as it may not count any more; how many these are.

    Raises:
        JournalUnavailableError: nothing of it was committed.
    """
    with reading(engine) as connection:
        if connection.scalar(select(payloads.c.position).where(*_outdated(task, oldest)).limit(1)) is None:
            return 0
    with writing(engine) as connection:
        return connection.execute(update(payloads).where(*_outdated(task, oldest)).values(set_aside=OUTDATED)).rowcount


def held_updates(engine: Engine, task: str) -> list[HeldUpdate]:
    """Those of a task, in the order in which they came.

    Raises:
        ConfigurationError: there is no such task.
        JournalUnavailableError: the database failed.
    """
    with reading(engine) as connection:
        served_task(connection, task)
        newest = newest_number_in(connection, task)
        return [_told(row, newest, "held") for row in _held(connection, task)]


def release(engine: Engine, task: str, devices: Iterable[str], plan: AggregationPlan) -> list[HeldUpdate]:
    """Let updates of devices wait for the next version; those that are staler now than may be are dropped. With which
    staleness they count is settled once that version is made.

    Raises:
        ConfigurationError: there is no such task, or nothing is held of one of the devices; nothing was changed.
        JournalUnavailableError: likewise.
    """
    found = []
    with writing(engine) as connection:
        newest = newest_number_in(connection, task)
        for row in _held_of(connection, task, devices):
            told = _told(row, newest, "released")
            if row.base_version < oldest_that_counts(plan, newest):
                told = _told(row, newest, f"{OUTDATED}: max_staleness is {plan.max_staleness}")
                _change(connection, row, {"set_aside": OUTDATED})
            else:
                place = {"position": last_position_in(connection) + 1, "staleness": told.staleness}
                _change(connection, row, {"set_aside": None, **place})
            found.append(told)
    return found


def drop(engine: Engine, task: str, devices: Iterable[str]) -> list[HeldUpdate]:
    """Let no version ever hold the updates of devices that are held.

    Raises:
        ConfigurationError: as `release`.
        JournalUnavailableError: likewise.
    """
    with writing(engine) as connection:
        newest = newest_number_in(connection, task)
        found = _held_of(connection, task, devices)
        for row in found:
            _change(connection, row, {"set_aside": DROPPED})
        return [_told(row, newest, DROPPED) for row in found]


def last_verdicts(engine: Engine, task: str, left: Mapping[str, int]) -> Verdicts:
    """Those on the last update of each device of a task's bundle, as far as the last versions go back, without what
    devices had sent before they `left` (`Lineage`). What came before these versions is not looked at.

    Raises:
        JournalUnavailableError: the database failed.
    """
    with reading(engine) as connection:
        first = _first_positions(connection, task)
        rows = connection.execute(_judged_since(task, _oldest_of(first), left))
        return Verdicts.of(((row.device, row.position, row.suspicion is not None) for row in rows), reversed(first))


def suspected_updates(engine: Engine, task: str, left: Mapping[str, int]) -> list[SuspectedUpdate]:
    """What versions hold, or may yet hold, although it was found suspicious: as far back as `last_verdicts` looks.

    Raises:
        JournalUnavailableError: the database failed.
    """
    may_count = payloads.c.suspicion.is_not(None), payloads.c.set_aside.is_(None)
    with reading(engine) as connection:
        since = _judged_since(task, _oldest_of(_first_positions(connection, task)), left)
        more = since.add_columns(payloads.c.sequence, payloads.c.aggregate, FACTS).where(*may_count)
        return [
            SuspectedUpdate(row.device, row.sequence, row.aggregate, _counts(row.facts), row.suspicion)
            for row in connection.execute(more)
        ]


def _counts(facts: str) -> float | None:
    found = _judged_facts(facts)
    return None if found is None else found.tempered


def _judged_facts(facts: str) -> _JudgedFacts | None:
    """None where they are damaged."""
    try:
        return msgspec.json.decode(facts, type=_JudgedFacts)
    except msgspec.DecodeError:
        return None


def _first_positions(connection: Connection, task: str) -> Sequence[int]:
    """Of the first update of each of the versions that are looked at, the newest first."""
    version = payloads.c.aggregate
    in_versions = (*updates_of(task), trained_from_first(task), version.is_not(None))
    firsts = select(func.min(payloads.c.position)).where(*in_versions).group_by(version)
    return connection.scalars(firsts.order_by(version.desc()).limit(VERSIONS_LOOKED_AT)).all()


def _oldest_of(first_positions: Sequence[int]) -> int:
    return first_positions[-1] if len(first_positions) == VERSIONS_LOOKED_AT else 0


def _judged_since(task: str, position: int, left: Mapping[str, int]) -> Select[Any]:
    """What was judged from a position on, in the order of the journal."""
    judged = or_(payloads.c.aggregate.is_not(None), payloads.c.suspicion.is_not(None))
    # The task is compared as an expression, or SQLite would go through all that it has ever had.
    of_task = (payloads.c.task.concat("") == task, payloads.c.kind == version_kind(task), trained_from_first(task))
    query = select(payloads.c.device, payloads.c.position, payloads.c.suspicion)
    these = query.where(payloads.c.position >= position, *of_task, judged, *_sent_since(left))
    return these.order_by(payloads.c.position)


def _sent_since(left: Mapping[str, int]) -> list[ColumnElement[bool]]:
    """Of payloads that may be in no version: what waits or is held when a device leaves is set aside for good."""
    may_count = or_(WAITING, HELD)
    return [
        or_(
            payloads.c.device != device,
            payloads.c.aggregate > version,
            and_(payloads.c.aggregate.is_(None), or_(may_count, payloads.c.base_version > version)),
        )
        for device, version in sorted(left.items())
    ]


def last_senders_positions(engine: Engine, task: str, lineage: Lineage, count: int) -> list[int]:
    """Of the last `count` devices whose updates a lineage holds, the position of the last update of each, ascending.

    Raises:
        JournalUnavailableError: the database failed.
    """
    with reading(engine) as connection:
        return sorted(connection.scalars(last_senders(task, lineage, count)))


def last_norms(engine: Engine, task: str, lineage: Lineage, count: int) -> dict[str, float]:
    """Of the last `count` such devices, the norm of the last such update of each, who sent last is last; without those
    whose facts are damaged.

    Raises:
        JournalUnavailableError: the database failed.
    """
    these = payloads.c.position.in_(last_senders(task, lineage, count))
    with reading(engine) as connection:
        rows = connection.execute(select(payloads.c.device, FACTS).where(these).order_by(payloads.c.position))
        found = {row.device: _judged_facts(row.facts) for row in rows}
    return {device: facts.norm for device, facts in found.items() if facts is not None}


def _outdated(task: str, oldest: int) -> tuple[ColumnElement[bool], ...]:
    return payloads.c.task == task, HELD, payloads.c.base_version < oldest


def _held(connection: Connection, task: str) -> list[Row[Any]]:
    columns = (payloads.c.position, payloads.c.device, payloads.c.sequence, payloads.c.base_version)
    query = select(*columns, payloads.c.suspicion).where(payloads.c.task == task, HELD)
    return list(connection.execute(query.order_by(payloads.c.position)))


def _held_of(connection: Connection, task: str, devices: Iterable[str]) -> list[Row[Any]]:
    served_task(connection, task)
    wanted = set(devices)
    found = [row for row in _held(connection, task) if row.device in wanted]
    if missing := sorted(wanted - {row.device for row in found}):
        raise ConfigurationError(
            f"nothing of {', '.join(missing)} is held in task {task!r}; see what is: broker-coordinator tasks"
            f" quarantine {task}"
        )
    return found


def _change(connection: Connection, row: Row[Any], values: Mapping[str, object]) -> None:
    connection.execute(update(payloads).where(payloads.c.position == row.position).values(values))


def _told(row: Row[Any], newest: int, outcome: str) -> HeldUpdate:
    return HeldUpdate(row.device, row.sequence, staleness_at(newest, row.base_version), outcome, row.suspicion)
