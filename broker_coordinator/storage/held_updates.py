"""Suspicious updates in the journal: held, released or dropped, each in one transaction; and what they are judged by.

An update that is held is set aside with `HELD_IN_QUARANTINE`; a `suspicion` stays with it, whatever becomes of it. One
that is released gets the next position of the journal, as if it had come now: so versions go on to hold updates in
journal order, and whoever makes them finds it behind all that they have read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, func, or_, select, update

from broker_coordinator.aggregation.lineage import Lineage
from broker_coordinator.aggregation.quarantine import Suspicion
from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.schema import HELD, HELD_IN_QUARANTINE, WAITING, payloads
from broker_coordinator.storage.standing import last_position_in
from broker_coordinator.storage.stored_tasks import served_task
from broker_coordinator.storage.task_conditions import (
    newest_number_in,
    newest_positions,
    trained_from_first,
    updates_of,
)
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


def hold(engine: Engine, suspicions: Mapping[int, Suspicion]) -> None:
    """Note, by position, what is suspicious of what waits, and hold what shall be held.

    Raises:
        JournalUnavailableError: nothing of it was committed.
    """
    with writing(engine) as connection:
        for position, each in suspicions.items():
            changed = {"suspicion": each.reason, "set_aside": HELD_IN_QUARANTINE if each.is_held else None}
            connection.execute(update(payloads).where(payloads.c.position == position, WAITING).values(changed))


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


def release(engine: Engine, task: str, devices: Iterable[str], max_staleness: int) -> list[HeldUpdate]:
    """Let updates of devices wait for the next version, with the staleness that they have now; those that are staler
    than may be are dropped.

    Raises:
        ConfigurationError: there is no such task, or nothing is held of one of the devices; nothing was changed.
        JournalUnavailableError: likewise.
    """
    found = []
    with writing(engine) as connection:
        newest = newest_number_in(connection, task)
        for row in _held_of(connection, task, devices):
            told = _told(row, newest, "released")
            if told.staleness > max_staleness:
                told = _told(row, newest, f"{OUTDATED}: max_staleness is {max_staleness}")
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


def last_judged(engine: Engine, task: str, count: int) -> list[bool]:
    """Of the last `count` updates of a task's bundle that were judged, oldest first: whether each was suspicious.

    Raises:
        JournalUnavailableError: the database failed.
    """
    judged = or_(payloads.c.aggregate.is_not(None), payloads.c.suspicion.is_not(None))
    query = select(payloads.c.suspicion).where(*updates_of(task), trained_from_first(task), judged)
    with reading(engine) as connection:
        found = connection.scalars(query.order_by(payloads.c.position.desc()).limit(count)).all()
    return [suspicion is not None for suspicion in reversed(found)]


def last_senders_positions(engine: Engine, task: str, lineage: Lineage, count: int) -> list[int]:
    """Of the last `count` devices whose updates a lineage holds, the position of the last update of each, ascending.

    Raises:
        JournalUnavailableError: the database failed.
    """
    query = newest_positions(task, lineage).order_by(func.max(payloads.c.position).desc()).limit(count)
    with reading(engine) as connection:
        return sorted(connection.scalars(query))


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
    return HeldUpdate(row.device, row.sequence, newest - row.base_version, outcome, row.suspicion)
