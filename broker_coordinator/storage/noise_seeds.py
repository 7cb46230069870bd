"""The secret seeds of versions that hide each device, and how often each device counts in them.

A version's seed is committed with it, in one transaction. So one that was told has the noise of one seed for ever, and
none is used for another sum: what a crash or a rollback leaves behind was never told, or stays as it was.
"""

import secrets
from collections.abc import Iterable

from sqlalchemy import ColumnElement, Connection, Engine, func, insert, select

from broker_coordinator.admission.participation import Participation, Participations
from broker_coordinator.aggregation.device_privacy.version_noise import SEED_BYTES, NoiseSeries, VersionNoise
from broker_coordinator.storage.database import reading
from broker_coordinator.storage.schema import WAITING, payloads, tasks, version_noise
from broker_coordinator.storage.task_conditions import first_version, newest_number_in, updates_of
from fleet_protocol.privacy.device_privacy import DevicePrivacy


def new_seed() -> bytes:
    """One that nobody can predict, of the operating system's generator."""
    return secrets.token_bytes(SEED_BYTES)


def begin_series(connection: Connection, task: str, version: int) -> None:
    """Note that the bundle of a task, whose own version this is, begins with no sums told."""
    insert_seed(connection, task, version, new_seed())


def insert_seed(connection: Connection, task: str, version: int, seed: bytes) -> None:
    """Insert that of a version, in the transaction that commits it."""
    generation = connection.scalar(select(tasks.c.generation).where(tasks.c.name == task)) or 0
    row = {"task": task, "version": version, "generation": generation, "seed": seed}
    connection.execute(insert(version_noise).values(row))


def read_series(engine: Engine, task: str, plan: DevicePrivacy) -> NoiseSeries:
    """The noised sums of a task's bundle so far.

    Raises:
        JournalUnavailableError: the database failed.
    """
    begun = select(version_noise.c.generation).where(
        version_noise.c.task == task, version_noise.c.version == first_version(task)
    )
    with reading(engine) as connection:
        now = connection.scalar(select(tasks.c.generation).where(tasks.c.name == task))
        made = connection.scalar(select(func.count()).where(*_sums_of(task))) or 0
        seeds = _seeds(connection, task, plan.correlation.kept(made))
        sums_after = newest_number_in(connection, task) - made
        return NoiseSeries(made, seeds, renewed=connection.scalar(begun) != now, sums_after=sums_after)


def read_noise(engine: Engine, task: str, version: int, plan: DevicePrivacy) -> VersionNoise | None:
    """That of one version; None of one that has none.

    Raises:
        JournalUnavailableError: the database failed.
    """
    numbers = select(version_noise.c.version).where(*_sums_of(task), version_noise.c.version <= version)
    with reading(engine) as connection:
        told = sorted(connection.scalars(numbers))
        if not told or told[-1] != version:
            return None
        seeds = _seeds(connection, task, plan.correlation.coefficients(len(told)))
    return VersionNoise.of(len(told), seeds, plan)


def read_participations(engine: Engine, task: str, buffer_size: int, *, waiting: bool) -> Participations:
    """In which sum of a task's bundle each device's last update counts, and how many of its updates count in all, by
    what sums hold; with `waiting`, also by what waits: that goes into the next ones, in order.

    Raises:
        JournalUnavailableError: the database failed.
    """
    numbers = select(version_noise.c.version).where(*_sums_of(task)).order_by(version_noise.c.version)
    held = select(payloads.c.device, func.count().label("updates"), func.max(payloads.c.aggregate).label("last"))
    held = held.where(*updates_of(task), payloads.c.aggregate > first_version(task)).group_by(payloads.c.device)
    not_held = select(payloads.c.device).where(*updates_of(task), WAITING).order_by(payloads.c.position)
    with reading(engine) as connection:
        place = {number: sum_ for sum_, number in enumerate(connection.scalars(numbers), 1)}
        found = {row.device: Participation(row.updates, place[row.last]) for row in connection.execute(held)}
        after = len(place) + 1
        for index, device in enumerate(connection.scalars(not_held) if waiting else ()):
            found[device] = found.get(device, Participation()).again(after + index // buffer_size)
    return found


def _seeds(connection: Connection, task: str, numbers: Iterable[int]) -> dict[int, bytes]:
    """Those of the sums with these numbers, the first sum of the bundle having number 1."""
    place = func.row_number().over(order_by=version_noise.c.version)
    sums = select(place.label("number"), version_noise.c.seed).where(*_sums_of(task)).subquery()
    rows = connection.execute(select(sums.c.number, sums.c.seed).where(sums.c.number.in_(sorted(numbers))))
    return {row.number: row.seed for row in rows}


def _sums_of(task: str) -> tuple[ColumnElement[bool], ...]:
    return version_noise.c.task == task, version_noise.c.version > first_version(task)
