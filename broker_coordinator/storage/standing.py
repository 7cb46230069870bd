"""What a running coordinator reads at every batch: how far each task is, and what waits. One transaction each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, bindparam, func, select

from broker_coordinator.storage.change_counters import change_counters_in
from broker_coordinator.storage.database import reading
from broker_coordinator.storage.schema import WAITING, payloads, tasks, versions

_NEWEST = select(func.max(versions.c.number)).where(versions.c.task == tasks.c.name).scalar_subquery()
_WAITING = (
    select(func.count())
    .where(payloads.c.task == tasks.c.name, payloads.c.kind == tasks.c.version_kind, WAITING)
    .scalar_subquery()
)
_STANDING = select(tasks.c.name, _NEWEST, _WAITING)
_NEWLY_WAITING = (
    select(payloads.c.position, payloads.c.task, payloads.c.kind)
    .where(payloads.c.position > bindparam("after"), WAITING)
    .order_by(payloads.c.position)
)
# Built once: to build a statement takes longer than to execute it.


@dataclass(frozen=True, slots=True)
class Standing:
    """By task, the number of its newest version and how many updates wait for the next ones."""

    change_counters: Mapping[str, int]
    tasks: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class NewlyWaiting:
    """Position, task and kind of payloads that wait for an aggregate, oldest first."""

    change_counters: Mapping[str, int]
    rows: Sequence[tuple[int, str, int]]


def read_standing(engine: Engine) -> Standing:
    """How far every task is.

    Raises:
        JournalUnavailableError: the database failed.
    """
    with reading(engine) as connection:
        found = {name: (newest, waiting) for name, newest, waiting in connection.execute(_STANDING)}
        return Standing(change_counters_in(connection), found)


def read_waiting(engine: Engine, after: int) -> NewlyWaiting:
    """What waits behind the position `after`.

    Raises:
        JournalUnavailableError: the database failed.
    """
    with reading(engine) as connection:
        rows = [(position, task, kind) for position, task, kind in connection.execute(_NEWLY_WAITING, {"after": after})]
        return NewlyWaiting(change_counters_in(connection), rows)
