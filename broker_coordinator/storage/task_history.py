"""What operators did to a task's versions: rollbacks, and devices that left or were forgotten."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Engine, select

from broker_coordinator.aggregation.lineage import Departure, History
from broker_coordinator.storage.database import reading
from broker_coordinator.storage.schema import departures, payloads, versions
from broker_coordinator.storage.task_conditions import first_version, of_bundle, updates_of


def history_of(engine: Engine, task: str) -> History:
    """That of the versions of a task's bundle."""
    rolled_back = select(versions.c.number, versions.c.restored, versions.c.step)
    rolled_back = rolled_back.where(*of_bundle(task), versions.c.restored.is_not(None))
    given_numbers = select(versions.c.number).where(*of_bundle(task), versions.c.given.is_not(None))
    query = select(departures.c.device, departures.c.version, departures.c.replayed_from, departures.c.since)
    with reading(engine) as connection:
        rows = connection.execute(query.where(departures.c.task == task).order_by(departures.c.version))
        left = [Departure(**row._mapping) for row in rows]
        first = connection.scalar(select(first_version(task))) or 0
        made = connection.execute(rolled_back).all()
        given = frozenset(connection.scalars(given_numbers))
    rollbacks = {row.number: row.restored for row in made}
    return History(rollbacks, left, first, {row.number: row.step for row in made}, given)


def still_with_forgotten(engine: Engine, task: str, numbers: Sequence[int]) -> Mapping[int, tuple[str, ...]]:
    """By version, those of `numbers` that were made with updates of devices which were forgotten, then or later; and
    which devices.
    """
    history = history_of(engine, task)
    forgotten = {each.device for each in history.departures if each.replayed_from is not None}
    if not forgotten:
        return {}
    held = versions_holding(engine, task, forgotten)
    found = {number: tuple(sorted(history.still_held(number, held))) for number in numbers}
    return {number: devices for number, devices in found.items() if devices}


def versions_holding(engine: Engine, task: str, chosen: Collection[str]) -> dict[str, list[int]]:
    """By device, in ascending order, the versions of a task's bundle that hold an update of it."""
    query = select(payloads.c.device, payloads.c.aggregate).distinct().order_by(payloads.c.aggregate)
    query = query.where(*updates_of(task), payloads.c.device.in_(chosen), payloads.c.aggregate.is_not(None))
    held: dict[str, list[int]] = {}
    with reading(engine) as connection:
        for device, version in connection.execute(query):
            held.setdefault(device, []).append(version)
    return held
