"""How many bytes versions took: of the updates in them, and of their weights."""

from dataclasses import dataclass

from sqlalchemy import Engine, func, select

from broker_coordinator.storage.database import reading
from broker_coordinator.storage.schema import payloads, versions
from broker_coordinator.storage.task_conditions import updates_of


@dataclass(frozen=True, slots=True)
class VersionBytes:
    """Of one version, in bytes: the signed updates that it holds, as far as they are kept, and its weights as a
    safetensors file; None where they are dropped.
    """

    updates: int | None = None
    weights: int | None = None


def read_version_bytes(engine: Engine, task: str, first: int, last: int) -> dict[int, VersionBytes]:
    """Of the versions `first` to `last`, by number.

    Raises:
        JournalUnavailableError: the database failed.
    """
    held = select(payloads.c.aggregate, func.sum(func.length(payloads.c.envelope)).label("bytes"))
    held = held.where(*updates_of(task), payloads.c.aggregate.between(first, last)).group_by(payloads.c.aggregate)
    made = select(versions.c.number, func.length(versions.c.weights).label("bytes"))
    made = made.where(versions.c.task == task, versions.c.number.between(first, last))
    with reading(engine) as connection:
        updates = {row.aggregate: None if row.bytes is None else int(row.bytes) for row in connection.execute(held)}
        return {row.number: VersionBytes(updates.get(row.number), row.bytes) for row in connection.execute(made)}
