"""The last updates of a task's present bundle, as figures: what `tasks diagnose` looks at."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Engine, func, select

from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.storage.database import reading
from broker_coordinator.storage.schema import FACTS, devices, payloads
from broker_coordinator.storage.task_conditions import held_from_first, trained_from_first, updates_of


@dataclass(frozen=True, slots=True)
class RecentUpdate:
    """One of them. `bytes` of its envelope, None where that is dropped; `facts` as in the journal."""

    position: int
    device: str
    kind: int
    staleness: int
    bytes: int | None
    facts: str


def recent_updates(engine: Engine, task: str, count: int) -> list[RecentUpdate]:
    """The last `count`, oldest first.

    Raises:
        JournalUnavailableError: the database fails.
    """
    size = func.length(payloads.c.envelope).label("bytes")
    query = select(payloads.c.position, payloads.c.device, payloads.c.kind, payloads.c.staleness, size, FACTS)
    query = query.where(*updates_of(task), trained_from_first(task)).order_by(payloads.c.position.desc())
    with reading(engine) as connection:
        return [RecentUpdate(*row) for row in reversed(connection.execute(query.limit(count)).all())]


def newest_of_devices(engine: Engine, task: str, count: int) -> list[tuple[str, int, str, int]]:
    """Of at most `count` approved devices whose updates of the bundle versions hold, those that sent last: name,
    staleness and facts of the newest of them, and how many there are; who sent last is last.

    Raises:
        JournalUnavailableError: the database fails.
    """
    last = select(func.max(payloads.c.position).label("position"), func.count().label("number"))
    last = last.join(devices, devices.c.name == payloads.c.device).where(*updates_of(task), held_from_first(task))
    last = last.where(devices.c.state == DeviceState.APPROVED.value).group_by(payloads.c.device)
    of_device = last.order_by(func.max(payloads.c.position).desc()).limit(count).subquery()
    query = select(payloads.c.device, payloads.c.staleness, FACTS, of_device.c.number)
    query = query.join(of_device, of_device.c.position == payloads.c.position).order_by(payloads.c.position)
    with reading(engine) as connection:
        return [(name, staleness, facts, int(number)) for name, staleness, facts, number in connection.execute(query)]


def updates_of_devices(engine: Engine, task: str) -> Iterator[tuple[str, int]]:
    """How many updates of the bundle each device has sent that may take part, 0 included, by name.

    Raises:
        JournalUnavailableError: the database fails.
    """
    counted = select(payloads.c.device, func.count().label("number"))
    counts = counted.where(*updates_of(task), trained_from_first(task)).group_by(payloads.c.device).subquery()
    query = select(devices.c.name, func.coalesce(counts.c.number, 0))
    query = query.outerjoin(counts, counts.c.device == devices.c.name).order_by(devices.c.name)
    with reading(engine) as connection:
        for name, number in connection.execute(query.where(devices.c.state == DeviceState.APPROVED.value)):
            yield name, int(number)
