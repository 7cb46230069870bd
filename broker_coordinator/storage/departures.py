"""Devices that leave: in the transaction that revokes or forgets one, what later versions lack is noted."""

from dataclasses import asdict

from sqlalchemy import ColumnElement, Connection, and_, func, insert, or_, select, true, update

from broker_coordinator.aggregation.lineage import Departure
from broker_coordinator.storage.change_counters import TASKS, count_up
from broker_coordinator.storage.cluster_registry import leave_clusters
from broker_coordinator.storage.pulls import drop_pull
from broker_coordinator.storage.schema import FACTS, HELD, WAITING, departures, payloads, tasks, versions
from fleet_protocol.kinds import ACTIVATION_SUMMARY, PROMPTS

LEFT = "its device was revoked or forgotten"


def note_departure(connection: Connection, device: str, task: str | None = None) -> None:
    """Let a device leave a task, or every one that it has sent something to: its payloads that wait or are held in
    quarantine are set aside, all prompts that it told, and all that was said of activations, by it or of it; it leaves
    clusters that were found by that; and versions from now on remember nothing of it.
    """
    left = true() if task is None else payloads.c.task == task
    sent_to = select(payloads.c.task).where(payloads.c.device == device, left).distinct()
    for each in connection.scalars(sent_to).all():
        newest = select(func.max(versions.c.number)).where(versions.c.task == each)
        insert_departure(connection, each, Departure(device, connection.scalar(newest) or 0))
    told_kinds = payloads.c.kind.in_([PROMPTS.number, ACTIVATION_SUMMARY.number])
    its_own = and_(payloads.c.device == device, or_(WAITING, HELD, told_kinds))
    connection.execute(update(payloads).where(left, or_(its_own, _said_of(device))).values(set_aside=LEFT))
    leave_clusters(connection, device, task)
    drop_pull(connection, device, task)
    count_up(connection, TASKS)


def _said_of(device: str) -> ColumnElement[bool]:
    """Of a payload: a helper said it of the device. Facts are read as text, so that a damaged row is no obstacle."""
    named = FACTS.element.contains(f'"device":"{device}"', autoescape=True)
    of_any_task = payloads.c.task.in_(select(tasks.c.name))  # by which an index finds the few of this kind
    return and_(of_any_task, payloads.c.kind == ACTIVATION_SUMMARY.number, named)


def insert_departure(connection: Connection, task: str, departure: Departure) -> None:
    """Note that a device left a task; again, with the replay without it that the next version is."""
    row = {"task": task, **asdict(departure)}
    this = [departures.c[key] == row[key] for key in ("task", "device", "version")]
    if not connection.execute(update(departures).where(*this).values(row)).rowcount:
        connection.execute(insert(departures).values(row))
