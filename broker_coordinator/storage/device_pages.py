"""The devices table for people: a page of it, searched and sorted by the database, and what is known of its rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Engine, func, select

from broker_coordinator.admission.fleet_view import Device, DeviceState
from broker_coordinator.storage.database import reading
from broker_coordinator.storage.device_registry import device_of_row
from broker_coordinator.storage.schema import devices, payloads, rejections
from fleet_protocol.errors import Reason

_REFUSED = (
    select(rejections.c.device, func.sum(rejections.c.count).label("number")).group_by(rejections.c.device).subquery()
)
SORTED_BY: Mapping[str, ColumnElement[object]] = {
    "name": devices.c.name,
    "state": devices.c.state,
    "presence": devices.c.presence,
    "profile": devices.c.profile,
    "software": devices.c.software,
    "changed": devices.c.changed,
    "refused": func.coalesce(_REFUSED.c.number, 0),
}
"""What a page may be sorted by; `changed` is the order in which devices enrolled last, or their state changed."""


@dataclass(frozen=True, slots=True)
class DevicePage:
    """Devices `first` to `first + len(devices)` of `total` that were looked for."""

    first: int
    total: int
    devices: Sequence[Device]


@dataclass(frozen=True, slots=True)
class Contribution:
    """What a device has sent: how many payloads were accepted, and of the last one its task and the version that it
    began with.
    """

    accepted: int
    task: str
    base_version: int


def read_device_page(
    engine: Engine,
    first: int,
    count: int,
    *,
    search: str = "",
    state: DeviceState | None = None,
    sort: str = "name",
    descending: bool = False,
) -> DevicePage:
    """At most `count` devices from the place `first` on, of those whose name, profile or software contains `search`.

    Raises:
        KeyError: `sort` is none of `SORTED_BY`.
        JournalUnavailableError: the database failed.
    """
    wanted: list[ColumnElement[bool]] = [] if state is None else [devices.c.state == state.value]
    if search:
        names = (devices.c.name, devices.c.profile, devices.c.software)
        found = [column.icontains(search, autoescape=True) for column in names]
        wanted.append(found[0] | found[1] | found[2])
    by = SORTED_BY[sort]
    order = (by.desc() if descending else by, devices.c.name, devices.c.public_key)
    with reading(engine) as connection:
        total = connection.scalar(select(func.count()).select_from(devices).where(*wanted)) or 0
        query = select(devices)
        if sort == "refused":
            query = query.outerjoin(_REFUSED, _REFUSED.c.device == devices.c.name)
        rows = connection.execute(query.where(*wanted).order_by(*order).offset(first).limit(count))
        return DevicePage(first, total, [device_of_row(row) for row in rows])


def count_devices(engine: Engine) -> dict[tuple[str, str], int]:
    """How many devices there are, by state and presence.

    Raises:
        JournalUnavailableError: the database failed.
    """
    counted = select(devices.c.state, devices.c.presence, func.count()).group_by(devices.c.state, devices.c.presence)
    with reading(engine) as connection:
        return {(state, presence): number for state, presence, number in connection.execute(counted)}


def read_contributions(engine: Engine, names: Sequence[str]) -> dict[str, Contribution]:
    """What some devices have sent, by name, without those that have sent nothing.

    Raises:
        JournalUnavailableError: the database failed.
    """
    counted = select(payloads.c.device, func.count().label("accepted"), func.max(payloads.c.sequence).label("last"))
    of_each = counted.where(payloads.c.device.in_(names)).group_by(payloads.c.device).subquery()
    query = select(of_each.c.device, of_each.c.accepted, payloads.c.task, payloads.c.base_version).join(
        payloads, (payloads.c.device == of_each.c.device) & (payloads.c.sequence == of_each.c.last)
    )
    with reading(engine) as connection:
        return {row.device: Contribution(row.accepted, row.task, row.base_version) for row in connection.execute(query)}


def read_refused_counts(engine: Engine, names: Sequence[str]) -> dict[str, dict[Reason, int]]:
    """How many messages of some devices were refused, by name and reason.

    Raises:
        JournalUnavailableError: the database failed.
    """
    columns = (rejections.c.device, rejections.c.reason, rejections.c.count)
    query = select(*columns).where(rejections.c.device.in_(names)).order_by(rejections.c.count.desc())
    found: dict[str, dict[Reason, int]] = {}
    with reading(engine) as connection:
        for device, reason, count in connection.execute(query):
            found.setdefault(device, {})[Reason(reason)] = count
    return found
