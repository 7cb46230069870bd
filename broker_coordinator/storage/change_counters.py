"""Counters of operators' changes: with one small read, a running coordinator sees when to read the rest again."""

from sqlalchemy import Connection, Engine, insert, select, update

from broker_coordinator.storage.database import reading
from broker_coordinator.storage.schema import change_counters

DEVICES, TASKS, HELPERS, QUERIES, CLUSTERS = "devices", "tasks", "helpers", "queries", "clusters"
COHORTS = "cohorts"
"""The subjects that are counted."""
ARRIVALS, ENROLMENTS = "arrivals", "enrolments"
"""Counted by the intakes of a fleet with several shards: somebody has come, a device is new or let in."""


_ALL = select(change_counters)


def read_change_counters(engine: Engine) -> dict[str, int]:
    """How often operators have changed something, by subject; a subject that was never changed is missing."""
    with reading(engine) as connection:
        return change_counters_in(connection)


def change_counters_in(connection: Connection) -> dict[str, int]:
    """The same, as a transaction sees it."""
    return {row.subject: row.number for row in connection.execute(_ALL)}


def count_up(connection: Connection, subject: str) -> None:
    """Note, in the transaction that makes it, that something of this subject changed."""
    ours = change_counters.c.subject == subject
    counted = connection.execute(update(change_counters).where(ours).values(number=change_counters.c.number + 1))
    if not counted.rowcount:
        connection.execute(insert(change_counters).values(subject=subject, number=1))
