"""Devices that leave: in the transaction that revokes or forgets one, what later versions lack is noted."""

from sqlalchemy import Connection, func, insert, or_, select, update

from broker_coordinator.storage.change_counters import TASKS, count_up
from broker_coordinator.storage.schema import WAITING, departures, payloads, versions
from fleet_protocol.kinds import PROMPTS

LEFT = "its device was revoked or forgotten"


def note_departure(connection: Connection, device: str) -> None:
    """Let a device leave every task that it has sent something to: its payloads that wait are set aside, and all
    prompts that it told; and versions from now on remember nothing of it.
    """
    sent_to = select(payloads.c.task).where(payloads.c.device == device).distinct()
    for task in connection.scalars(sent_to).all():
        newest = select(func.max(versions.c.number)).where(versions.c.task == task)
        insert_departure(connection, task, device, connection.scalar(newest) or 0)
    unused = (payloads.c.device == device, or_(WAITING, payloads.c.kind == PROMPTS.number))
    connection.execute(update(payloads).where(*unused).values(set_aside=LEFT))
    count_up(connection, TASKS)


def insert_departure(
    connection: Connection, task: str, device: str, version: int, replayed_from: int | None = None
) -> None:
    """Note that a device left a task after a version; again, with where the next one is replayed from."""
    this = (departures.c.task == task, departures.c.device == device, departures.c.version == version)
    changed = connection.execute(update(departures).where(*this).values(replayed_from=replayed_from))
    if not changed.rowcount:
        row = {"task": task, "device": device, "version": version, "replayed_from": replayed_from}
        connection.execute(insert(departures).values(row))
