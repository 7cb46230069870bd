"""The rows that a task has in the journal: let wait no longer, or deleted, some at a time."""

from sqlalchemy import Connection, Engine, delete, func, insert, or_, select, update

from broker_coordinator.storage.change_counters import CLUSTERS, COHORTS, QUERIES, count_up
from broker_coordinator.storage.database import writing
from broker_coordinator.storage.schema import (
    HELD,
    WAITING,
    aggregates,
    bundle_files,
    clusters,
    cohorts,
    departures,
    evaluations,
    findings,
    payloads,
    pulls,
    pulls_read,
    queries,
    rosters,
    varieties,
    version_noise,
    versions,
)
from broker_coordinator.storage.standing import last_position_in

PAYLOADS_PER_STEP = 1_000
VERSIONS_PER_STEP = 10
"""Rows that one transaction deletes: a running coordinator commits in between."""


def set_aside_waiting(connection: Connection, task: str, reason: str) -> None:
    """Let no aggregate hold what waits, or is held in quarantine; `reason` is for people to read."""
    these = (payloads.c.task == task, or_(WAITING, HELD))
    connection.execute(update(payloads).where(*these).values(set_aside=reason))


def stop_queries(connection: Connection, task: str) -> None:
    """Ask its devices nothing more."""
    of_task = queries.c.task == task, queries.c.state == "open"
    if connection.execute(update(queries).where(*of_task).values(state="stopped")).rowcount:
        count_up(connection, QUERIES)


def begin_aggregates_anew(connection: Connection, task: str) -> None:
    """Let every kind that makes no versions go on counting from an empty state."""
    newest = select(aggregates.c.kind, func.max(aggregates.c.number).label("number"))
    rows = connection.execute(newest.where(aggregates.c.task == task).group_by(aggregates.c.kind)).all()
    for row in rows:
        connection.execute(insert(aggregates).values(task=task, kind=row.kind, number=row.number + 1, state=b""))


def delete_rows(engine: Engine, task: str) -> None:
    """Delete everything of a task but its row in `tasks`, and but the journal's last payload, by which it counts.

    Raises:
        JournalUnavailableError: the database failed; what was deleted before stays deleted.
    """
    while _delete_some(engine, task):
        pass


def _delete_some(engine: Engine, task: str) -> int:
    with writing(engine) as connection:
        last = last_position_in(connection)
        some = select(payloads.c.position).where(payloads.c.task == task, payloads.c.position != last)
        some = some.limit(PAYLOADS_PER_STEP)
        deleted = connection.execute(delete(payloads).where(payloads.c.position.in_(some))).rowcount
        kept = payloads.c.task == task, payloads.c.envelope.is_not(None), payloads.c.position == last
        connection.execute(update(payloads).where(*kept).values(envelope=None, set_aside="the task was removed"))
        if deleted:
            return deleted
        connection.execute(delete(evaluations).where(evaluations.c.task == task))
        connection.execute(delete(aggregates).where(aggregates.c.task == task))
        connection.execute(delete(departures).where(departures.c.task == task))
        for named in (findings, pulls, pulls_read, rosters, varieties, version_noise):
            connection.execute(delete(named).where(named.c.task == task))
        if connection.execute(delete(cohorts).where(cohorts.c.task == task)).rowcount:
            count_up(connection, COHORTS)
        if connection.execute(delete(clusters).where(clusters.c.task == task)).rowcount:
            count_up(connection, CLUSTERS)
        connection.execute(delete(bundle_files).where(bundle_files.c.task == task))
        numbers = select(versions.c.number).where(versions.c.task == task).limit(VERSIONS_PER_STEP)
        these = versions.c.task == task, versions.c.number.in_(numbers)
        return connection.execute(delete(versions).where(*these)).rowcount
