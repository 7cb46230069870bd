"""What a running coordinator reads at every batch: how far each task is, and what waits. One transaction each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, Engine, bindparam, func, literal, select, union_all

from broker_coordinator.storage.by_driver import rows
from broker_coordinator.storage.database import DatabaseSetBackError, reading
from broker_coordinator.storage.schema import (
    WAITING,
    change_counters,
    helpers,
    payloads,
    refused_payloads,
    tasks,
    versions,
)

_NEWEST = select(func.max(versions.c.number)).where(versions.c.task == tasks.c.name).scalar_subquery()
_BUFFER_SIZE = (
    select(versions.c.buffer_size)
    .where(versions.c.task == tasks.c.name)
    .order_by(versions.c.number.desc())
    .limit(1)
    .scalar_subquery()
)
_WAITING = (
    select(func.count())
    .where(payloads.c.task == tasks.c.name, payloads.c.kind == tasks.c.version_kind, WAITING)
    .scalar_subquery()
)
_ALONG = (
    select(func.count())
    .where(
        payloads.c.task == tasks.c.name,
        payloads.c.kind == tasks.c.version_kind,
        payloads.c.device.in_(select(helpers.c.name)),
        WAITING,
    )
    .scalar_subquery()
)
_STANDING = select(tasks.c.name, _NEWEST, _WAITING, _BUFFER_SIZE, _ALONG)
_NEWLY_WAITING = (
    select(payloads.c.position, payloads.c.task, payloads.c.kind)
    .where(payloads.c.position > bindparam("after"), WAITING)
    .order_by(payloads.c.position)
)
_DECIDED_BY = union_all(
    *(select(literal("").label("subject"), func.max(table.c.position)) for table in (payloads, refused_payloads)),
    select(change_counters.c.subject, change_counters.c.number),
)
_DECIDED = union_all(
    *(
        select(table.c.device, table.c.sequence).where(table.c.position > bindparam("after"))
        for table in (payloads, refused_payloads)
    )
).subquery()
_DECIDED_AFTER = select(_DECIDED.c.device, func.max(_DECIDED.c.sequence).label("highest")).group_by(_DECIDED.c.device)
# Built once: to build a statement takes longer than to execute it.


class TaskStanding(NamedTuple):
    """The number of a task's newest version, how many updates wait for the next ones, and how many the next one takes,
    where that follows the fleet. Of those that wait, `along` are helpers', which take no place.
    """

    newest: int = 0
    waiting: int = 0
    buffer_size: int | None = None
    along: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How far each task is.

    `last_position` is that of the last payload whose outcome is journalled, accepted or refused.
    """

    tasks: Mapping[str, TaskStanding]
    last_position: int
    change_counters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class NewlyWaiting:
    """`rows`: position, task and kind of payloads that wait, oldest first. `last_position` as in `Standing`."""

    rows: Sequence[tuple[int, str, int]]
    last_position: int
    change_counters: Mapping[str, int]


def read_standing(engine: Engine) -> Standing:
    """How far every task is.

    Raises:
        JournalUnavailableError: the database failed.
    """
    with reading(engine) as connection:
        found = {name: TaskStanding(*standing) for name, *standing in rows(connection, _STANDING)}
        return Standing(found, *decided_by(connection))


def decided_by(connection: Connection) -> tuple[int, dict[str, int]]:
    """What a batch must have been decided by to be committed now: the position of the last payload whose outcome is
    journalled, 0 where there is none, and the change counters.
    """
    found = rows(connection, _DECIDED_BY)
    return max(number or 0 for subject, number in found if not subject), {row[0]: row[1] for row in found if row[0]}


def last_position_in(connection: Connection) -> int:
    """The position of the last payload whose outcome is journalled; 0 where there is none."""
    return decided_by(connection)[0]


def check_not_set_back(found: int, known: int) -> None:
    """Compare the journal's last position with one that is known to be committed; positions only count up.

    Raises:
        DatabaseSetBackError: it ends before.
    """
    if found < known:
        raise DatabaseSetBackError(f"the journal ends at position {found}; this process knows {known} to be committed")


def read_decided(engine: Engine, after: int) -> dict[str, int]:
    """Per device, the highest sequence number of which an outcome is journalled behind the position `after`.

    Raises:
        JournalUnavailableError: the database failed.
    """
    with reading(engine) as connection:
        return decided_after(connection, after)


def decided_after(connection: Connection, after: int) -> dict[str, int]:
    """The same, as a transaction sees it."""
    return dict(rows(connection, _DECIDED_AFTER, after=after))


def read_waiting(engine: Engine, after: int) -> NewlyWaiting:
    """What waits behind the position `after`.

    Raises:
        JournalUnavailableError: the database failed.
    """
    with reading(engine) as connection:
        waiting = rows(connection, _NEWLY_WAITING, after=after)
        return NewlyWaiting(waiting, *decided_by(connection))
