"""What the journal has of a task's scale: how many devices have reported, or what it was made of."""

from sqlalchemy import Engine, distinct, func, select

from broker_coordinator.storage.database import reading
from broker_coordinator.storage.schema import WAITING, aggregates, payloads
from fleet_protocol.kinds import STATISTICS


def devices_reported(engine: Engine, task: str) -> int:
    """Devices whose statistics wait for the task's scale.

    Raises:
        JournalUnavailableError: the database can't be read.
    """
    waiting = (payloads.c.task == task, payloads.c.kind == STATISTICS.number, WAITING)
    with reading(engine) as connection:
        return connection.scalar(select(func.count(distinct(payloads.c.device))).where(*waiting)) or 0


def scale_made(engine: Engine, task: str) -> bytes:
    """The aggregate that the task's present bundle has its scale from; empty where there is none.

    A bundle begins with an empty aggregate, so it is the one before.

    Raises:
        JournalUnavailableError: the database can't be read.
    """
    kind = (aggregates.c.task == task, aggregates.c.kind == STATISTICS.number)
    query = select(aggregates.c.state).where(*kind).order_by(aggregates.c.number.desc()).limit(2)
    with reading(engine) as connection:
        states = list(connection.scalars(query))
    return states[1] if len(states) > 1 and not states[0] else b""
