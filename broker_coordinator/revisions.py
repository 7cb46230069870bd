"""Counters of what operators changed: a running coordinator sees in one small read when to look again."""

from sqlalchemy import Connection, Engine, insert, select, update

from broker_coordinator.database import reading
from broker_coordinator.schema import revisions

DEVICES, TASKS = "devices", "tasks"
"""The subjects that are counted."""


def read_revisions(engine: Engine) -> dict[str, int]:
    """How often operators have changed something, by subject; a subject that was never changed is missing."""
    with reading(engine) as connection:
        return revisions_in(connection)


def revisions_in(connection: Connection) -> dict[str, int]:
    """The same, as a transaction sees it."""
    return {row.subject: row.number for row in connection.execute(select(revisions))}


def count_up(connection: Connection, subject: str) -> None:
    """Note, in the transaction that makes it, that something of this subject changed."""
    ours = revisions.c.subject == subject
    counted = connection.execute(update(revisions).where(ours).values(number=revisions.c.number + 1))
    if not counted.rowcount:
        connection.execute(insert(revisions).values(subject=subject, number=1))
