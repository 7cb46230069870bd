"""Reads losses: what devices have declared of theirs in training, and those of evaluated versions."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Engine, Row, Select, func, select

from broker_coordinator.aggregation.collapse import DeviceLoss
from broker_coordinator.aggregation.harm import FIRST_VERSIONS, UPDATES_LOOKED_AT, Declared, Harm
from broker_coordinator.storage.database import reading
from broker_coordinator.storage.records import declared_loss
from broker_coordinator.storage.schema import FACTS, evaluations, payloads, versions
from broker_coordinator.storage.task_conditions import first_version, held_from_first, updates_of


def declared_losses(engine: Engine, task: str, first: int, last: int) -> dict[int, list[DeviceLoss]]:
    """Those of the updates in the versions `first` to `last`, with who declared them, by version, the oldest first;
    without versions that have none.

    Raises:
        JournalUnavailableError: the database failed.
    """
    held = _held(task).where(payloads.c.aggregate.between(first, last))
    found: dict[int, list[DeviceLoss]] = {}
    with reading(engine) as connection:
        rows = connection.execute(held.order_by(payloads.c.aggregate, payloads.c.position))
        for version, declared in _told(rows):
            found.setdefault(version, []).append((declared.device, declared.loss))
    return found


def known_harm(engine: Engine, task: str) -> Harm:
    """What the devices of a task's bundle have declared, as if all of its versions had been noted.

    Raises:
        JournalUnavailableError: the database failed.
    """
    of_bundle = _held(task).where(held_from_first(task))
    order = (payloads.c.aggregate, payloads.c.position)
    # What the oldest of those looked at had gained is known from as many before them.
    most = 2 * UPDATES_LOOKED_AT
    newest = of_bundle.order_by(*(each.desc() for each in order)).limit(most)
    with reading(engine) as connection:
        own = connection.scalar(select(first_version(task))) or 0
        rows = list(reversed(connection.execute(newest).all()))
        harm = Harm(own)
        if len(rows) == most:
            early = of_bundle.where(payloads.c.aggregate <= own + FIRST_VERSIONS).order_by(*order)
            began = _noted(Harm(own), connection.execute(early.limit(UPDATES_LOOKED_AT)))
            harm.first, harm.first_are_known = began.first, True
    return _noted(harm, rows)


def _noted(harm: Harm, rows: Iterable[Row[Any]]) -> Harm:
    for version, told in groupby(_told(rows), key=itemgetter(0)):
        harm.note(version, [declared for _, declared in told])
    return harm


def _held(task: str) -> Select[Any]:
    """What versions of a task hold."""
    columns = (payloads.c.kind, payloads.c.aggregate, payloads.c.device, payloads.c.base_version, FACTS)
    return select(*columns).where(*updates_of(task))


def _told(rows: Iterable[Row[Any]]) -> Iterator[tuple[int, Declared]]:
    """By version, what updates declare; without those that declare nothing."""
    for row in rows:
        if (loss := declared_loss(row.kind, row.facts)) is not None:
            yield row.aggregate, Declared(row.device, loss, row.base_version)


def evaluated_losses(engine: Engine, task: str) -> dict[int, float]:
    """Those of the versions of the task's bundle that were evaluated since one was restored, by version, the oldest
    first.

    Raises:
        JournalUnavailableError: the database failed.
    """
    restored = select(func.max(versions.c.number)).where(versions.c.task == task, versions.c.restored.is_not(None))
    since = func.coalesce(restored.scalar_subquery(), 0)
    of_task = (evaluations.c.task == task, evaluations.c.version >= since, evaluations.c.version >= first_version(task))
    found = select(evaluations.c.version, evaluations.c.loss).where(*of_task).order_by(evaluations.c.version)
    with reading(engine) as connection:
        return {row.version: row.loss for row in connection.execute(found)}
