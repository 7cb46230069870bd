"""How much the pictures differ that a task's generator draws, as it was measured last (docs/operating.md)."""

import msgspec
from sqlalchemy import Engine, delete, insert, select

from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.schema import tasks, varieties


class ClusterTold(msgspec.Struct, frozen=True):
    """What `tasks variety` says of a cluster."""

    cluster: int
    variety: float
    greatest: float
    greatest_in: int
    narrow: bool


class VarietyTold(msgspec.Struct, frozen=True):
    """What it says of a version."""

    task: str
    version: int
    clusters: tuple[ClusterTold, ...]


class VarietyRegistry:
    """One measurement of each task. Every method raises JournalUnavailableError where the database fails."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(self, told: VarietyTold) -> None:
        """In place of the one before; of a task that was removed meanwhile, nothing."""
        is_served = select(tasks.c.name).where(tasks.c.name == told.task, tasks.c.removed.is_(False))
        with writing(self._engine) as connection:
            connection.execute(delete(varieties).where(varieties.c.task == told.task))
            if connection.scalar(is_served) is not None:
                document = msgspec.json.encode(told).decode()
                connection.execute(insert(varieties).values(task=told.task, version=told.version, document=document))

    def last(self, task: str) -> VarietyTold | None:
        """The one of a task; None where none was ever made."""
        with reading(self._engine) as connection:
            document = connection.scalar(select(varieties.c.document).where(varieties.c.task == task))
            return msgspec.json.decode(document, type=VarietyTold) if document else None
