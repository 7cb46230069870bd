"""What an older database in this one's place means: it is noted, and what may be used up by then counts no more."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, Engine, func, insert, select, update

from broker_coordinator.admission.fleet_view import Device, DeviceState
from broker_coordinator.storage.change_counters import TASKS, count_up
from broker_coordinator.storage.database import reading
from broker_coordinator.storage.device_registry import device_of_row, revoke_device, store_device
from broker_coordinator.storage.invitation_registry import withdraw_all
from broker_coordinator.storage.schema import devices, restores, tasks
from fleet_protocol.limits import MAX_GENERATION


class Noticed(StrEnum):
    """What has shown that an older database took its place."""

    COMMAND = "restore"
    MANIFESTS = "manifests"
    ACCOUNTS = "accounts"


@dataclass(frozen=True, slots=True)
class Restore:
    """One of them. `made`: when the backup was, in seconds since 1970; None where nobody knows. `compared`: devices
    were compared with the broker's accounts since then.
    """

    made: int | None
    noticed: Noticed
    compared: bool


def last_restore(engine: Engine) -> Restore | None:
    """The last one; None where there was none."""
    with reading(engine) as connection:
        return last_restore_in(connection)


def last_restore_in(connection: Connection) -> Restore | None:
    """The same, as a transaction sees it."""
    row = connection.execute(select(restores).order_by(restores.c.number.desc()).limit(1)).first()
    return None if row is None else Restore(row.made, Noticed(row.noticed), row.compared)


def note_restore(connection: Connection, noticed: Noticed, made: int | None = None) -> list[str]:
    """Note that the database is an older one. Open invitations may be used up, and are withdrawn; returns for whom
    they were. What a running coordinator notices of one that is noted, and not compared yet, is nothing new.
    """
    last = last_restore_in(connection)
    if noticed is not Noticed.COMMAND and last is not None and not last.compared:
        return []
    number = (connection.scalar(select(func.max(restores.c.number))) or 0) + 1
    row = {"number": number, "made": made, "noticed": noticed.value, "compared": False}
    connection.execute(insert(restores).values(row))
    return withdraw_all(connection)


def note_compared(connection: Connection) -> None:
    """Note that the broker's accounts have shown what they can."""
    connection.execute(update(restores).values(compared=True))


def generations(connection: Connection) -> dict[str, int]:
    """That of every task, by its name."""
    return {row.name: row.generation for row in connection.execute(select(tasks.c.name, tasks.c.generation))}


def begin_generations(connection: Connection, replaced: Mapping[str, int]) -> None:
    """Begin a generation of every task, so that devices follow this database whatever later version they know: a later
    one than in the database that it has `replaced`, which may have begun some since the backup.
    """
    for name, generation in generations(connection).items():
        begun = min(MAX_GENERATION, max(generation, replaced.get(name, 0)) + 1)
        connection.execute(update(tasks).where(tasks.c.name == name).values(generation=begun))
    count_up(connection, TASKS)


def revoked_devices(connection: Connection) -> list[Device]:
    """Every key that is revoked."""
    rows = connection.execute(select(devices).where(devices.c.state == DeviceState.REVOKED.value))
    return [device_of_row(row) for row in rows]


def revoke_again(connection: Connection, revoked: Sequence[Device]) -> Iterator[str]:
    """Revoke keys in an older database that a newer one had revoked; yields the names of those that were approved."""
    for device in revoked:
        this = devices.c.public_key == bytes(device.public_key)
        row = connection.execute(select(devices).where(this)).first()
        if row is None:
            store_device(connection, device)
        elif row.state != DeviceState.REVOKED.value:
            revoke_device(connection, device_of_row(row))
            if row.state == DeviceState.APPROVED.value:
                yield device.name
