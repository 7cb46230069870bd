"""Where devices' updates point: added up out of the journal up to a version, and kept by device (docs/clusters.md).

Updates count in the order of the versions that hold them, so the sums after a version are the same bytes however often
clusters were looked for on the way there.
"""

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import msgspec
import numpy as np
from sqlalchemy import Connection, Engine, Row, bindparam, delete, insert, select

from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.aggregation.clusters import NO_PULL, Pull
from broker_coordinator.consumers.update import UpdateFacts
from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.schema import FACTS, departures, devices, payloads, pulls, pulls_read
from broker_coordinator.storage.task_conditions import first_version, newest_number_in, updates_of

ROWS_AT_A_TIME = 500

_VALUES = "<f8"
"""How a sum is kept: as it was computed, so that nothing depends on where reading stopped."""

_DECODER = msgspec.json.Decoder(UpdateFacts)


class _Read(NamedTuple):
    """What pulls follow from: the bundle's own version, the newest version read, and who left before which version."""

    first: int
    version: int
    left: Mapping[str, int]


def told_directions(engine: Engine, task: str) -> dict[str, Pull]:
    """By approved device, where its updates pull that versions of the task's bundle hold; who sent last is last. What a
    device sent before it was revoked or forgotten does not count. Reads what has come since the last call; keeps it.

    Raises:
        JournalUnavailableError: the database failed; nothing is kept.
    """
    while True:
        with reading(engine) as connection:
            before = _read(connection, task)
            newest = newest_number_in(connection, task)
            changed = _added_up(connection, task, before, newest)
        with writing(engine) as connection:
            if _read(connection, task) != before:
                continue  # somebody else has read, or a device has left
            _keep(connection, task, changed, before._replace(version=newest))
            return _of_approved(connection, task)


def drop_pull(connection: Connection, device: str, task: str | None = None) -> None:
    """Forget where a device's updates pull, in a task or in all."""
    of_task = [] if task is None else [pulls.c.task == task]
    connection.execute(delete(pulls).where(pulls.c.device == device, *of_task))


def _read(connection: Connection, task: str) -> _Read:
    """What was read so far; nothing of a bundle that there was before."""
    first = connection.scalar(select(first_version(task))) or 0
    row = connection.execute(select(pulls_read).where(pulls_read.c.task == task)).first()
    of_left = select(departures.c.device, departures.c.version).where(departures.c.task == task)
    left: dict[str, int] = {}
    for device, version in connection.execute(of_left):
        left[device] = max(left.get(device, 0), version)
    return _Read(first, row.version if row is not None and row.first_version == first else first, left)


def _added_up(connection: Connection, task: str, read: _Read, newest: int) -> dict[str, tuple[int, Pull]]:
    """By device, the position of its newest update and its pull, where versions behind `read` hold one."""
    held = payloads.c.aggregate.between(read.version + 1, newest), payloads.c.base_version >= read.first
    query = select(payloads.c.device, payloads.c.aggregate, payloads.c.position, FACTS)
    query = query.where(*updates_of(task), *held, payloads.c.set_aside.is_(None))
    query = query.order_by(payloads.c.aggregate, payloads.c.position)
    begun = _kept(connection, task) if read.version > read.first else {}
    changed: dict[str, tuple[int, Pull]] = {}
    for row in connection.execute(query, execution_options={"yield_per": ROWS_AT_A_TIME}):
        if row.aggregate <= read.left.get(row.device, -1):
            continue
        with suppress(msgspec.MsgspecError):  # a damaged row: the others count
            facts = _DECODER.decode(row.facts)
            if facts.direction:
                _, before = changed.get(row.device) or begun.get(row.device, (0, NO_PULL))
                pull = before.after(facts.cluster, facts.direction, facts.norm * facts.scale, row.aggregate)
                changed[row.device] = (row.position, pull)
    return changed


def _kept(connection: Connection, task: str) -> dict[str, tuple[int, Pull]]:
    rows = connection.execute(select(pulls).where(pulls.c.task == task))
    return {row.device: (row.position, _pull(row)) for row in rows}


def _pull(row: Row) -> Pull:  # type: ignore[type-arg]
    return Pull(row.cluster, row.updates, np.frombuffer(row.total, _VALUES).astype(np.float64), row.version)


def _keep(connection: Connection, task: str, changed: Mapping[str, tuple[int, Pull]], read: _Read) -> None:
    of_task = pulls.c.task == task
    marked = connection.execute(select(pulls_read).where(pulls_read.c.task == task)).first()
    if marked is not None and (marked.first_version, marked.version) == (read.first, read.version):
        return
    if marked is None or marked.first_version != read.first:
        connection.execute(delete(pulls).where(of_task))
    elif changed:
        one = delete(pulls).where(of_task, pulls.c.device == bindparam("name"))
        connection.execute(one, [{"name": device} for device in changed])
    rows = [
        {
            "task": task,
            "device": device,
            "cluster": pull.cluster,
            "updates": pull.updates,
            "version": pull.version,
            "position": position,
            "total": pull.total.astype(_VALUES).tobytes(),
        }
        for device, (position, pull) in changed.items()
    ]
    if rows:
        connection.execute(insert(pulls), rows)
    connection.execute(delete(pulls_read).where(pulls_read.c.task == task))
    row = {"task": task, "first_version": read.first, "version": read.version}
    connection.execute(insert(pulls_read).values(row))


def _of_approved(connection: Connection, task: str) -> dict[str, Pull]:
    approved = select(devices.c.name).where(devices.c.state == DeviceState.APPROVED.value)
    query = select(pulls).where(pulls.c.task == task, pulls.c.device.in_(approved)).order_by(pulls.c.position)
    return {row.device: _pull(row) for row in connection.execute(query)}
