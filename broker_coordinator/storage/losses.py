"""Reads what devices have declared of their losses in training."""

from sqlalchemy import Engine, Text, cast, select

from broker_coordinator.storage.database import reading
from broker_coordinator.storage.records import declared_loss
from broker_coordinator.storage.schema import payloads
from broker_coordinator.storage.task_conditions import updates_of


def declared_losses(engine: Engine, task: str, first: int, last: int) -> dict[int, list[float]]:
    """Those of the updates in the versions `first` to `last`, by version, the oldest first; without versions that have
    none.

    Raises:
        JournalUnavailableError: the database failed.
    """
    held = select(payloads.c.kind, payloads.c.aggregate, cast(payloads.c.facts, Text).label("facts"))
    held = held.where(*updates_of(task), payloads.c.aggregate.between(first, last))
    found: dict[int, list[float]] = {}
    with reading(engine) as connection:
        for row in connection.execute(held.order_by(payloads.c.aggregate, payloads.c.position)):
            if (loss := declared_loss(row.kind, row.facts)) is not None:
                found.setdefault(row.aggregate, []).append(loss)
    return found
