"""Reads losses: what devices have declared of theirs in training, and those of evaluated versions."""

from sqlalchemy import Engine, Text, cast, func, select

from broker_coordinator.aggregation.collapse import Declared
from broker_coordinator.storage.database import reading
from broker_coordinator.storage.records import declared_loss
from broker_coordinator.storage.schema import evaluations, payloads, versions
from broker_coordinator.storage.task_conditions import first_version, updates_of


def declared_losses(engine: Engine, task: str, first: int, last: int) -> dict[int, list[Declared]]:
    """Those of the updates in the versions `first` to `last`, with who declared them, by version, the oldest first;
    without versions that have none.

    Raises:
        JournalUnavailableError: the database failed.
    """
    held = select(payloads.c.device, payloads.c.kind, payloads.c.aggregate, cast(payloads.c.facts, Text).label("facts"))
    held = held.where(*updates_of(task), payloads.c.aggregate.between(first, last))
    found: dict[int, list[Declared]] = {}
    with reading(engine) as connection:
        for row in connection.execute(held.order_by(payloads.c.aggregate, payloads.c.position)):
            if (loss := declared_loss(row.kind, row.facts)) is not None:
                found.setdefault(row.aggregate, []).append((row.device, loss))
    return found


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
