"""The devices table: what an operator does to it, and what a running coordinator reads of it."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Engine, Row, case, delete, func, insert, select, update

from broker_coordinator.admission.fleet_view import Device, DeviceState
from broker_coordinator.storage.change_counters import DEVICES, count_up
from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.departures import note_departure
from broker_coordinator.storage.schema import devices
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import VerifyKey, key_id
from fleet_protocol.kinds import PresenceState

MAX_REVOKED_KEYS = 10_000
"""Keys that are refused by name. The one that was revoked first is forgotten, and may enrol as any unknown key may."""

_NEXT_CHANGE = select(func.coalesce(func.max(devices.c.changed), 0) + 1).scalar_subquery()


class DeviceRegistry:
    """Lists, approves and revokes devices. A running coordinator notices (`change_counters`)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def devices(self) -> list[Device]:
        """All devices by name; of one name, the live key last."""
        with reading(self._engine) as connection:
            query = select(devices).order_by(devices.c.name, devices.c.state.desc())
            return [device_of_row(row) for row in connection.execute(query)]

    def longest_unchanged_first(self) -> list[Device]:
        """All devices in the order in which they enrolled last, or their state changed."""
        with reading(self._engine) as connection:
            return [device_of_row(row) for row in connection.execute(select(devices).order_by(devices.c.changed))]

    def like(self, enrolled: Collection[Device]) -> list[Device]:
        """The devices with the names or keys of those that enrol."""
        names, keys = {each.name for each in enrolled}, {bytes(each.public_key) for each in enrolled}
        query = select(devices).where(devices.c.name.in_(names) | devices.c.public_key.in_(keys))
        with reading(self._engine) as connection:
            return [device_of_row(row) for row in connection.execute(query)]

    def approved_count(self) -> int:
        """How many devices may take part."""
        approved = select(func.count()).where(devices.c.state == DeviceState.APPROVED.value)
        with reading(self._engine) as connection:
            return connection.scalar(approved) or 0

    def approved_presences(self) -> dict[str, PresenceState]:
        """Which of the devices that may take part are connected, by name."""
        approved = select(devices.c.name, devices.c.presence).where(devices.c.state == DeviceState.APPROVED.value)
        with reading(self._engine) as connection:
            return {name: PresenceState(presence) for name, presence in connection.execute(approved)}

    def note_used_twice(self, name: str) -> None:
        """Two devices use the key of this name at once: shown until an operator approves or revokes it."""
        with writing(self._engine) as connection:
            live = devices.c.name == name, devices.c.state == DeviceState.APPROVED.value
            connection.execute(update(devices).where(*live).values(is_used_twice=True))

    def used_twice(self) -> set[str]:
        """The names whose key two devices use."""
        with reading(self._engine) as connection:
            return set(connection.scalars(select(devices.c.name).where(devices.c.is_used_twice)))

    def had_accounts(self) -> set[bytes]:
        """The ids of keys that await approval, and have or had an account at the broker: they took part before."""
        waiting = devices.c.state == DeviceState.PENDING.value, devices.c.coordinator_key.is_not(None)
        with reading(self._engine) as connection:
            return {key_id(VerifyKey(key)) for key in connection.scalars(select(devices.c.public_key).where(*waiting))}

    def approve(self, name: str, public_key: VerifyKey) -> Device:
        """Let a device take part, whether it has enrolled or not. Another key that awaits approval under its name is
        revoked: whoever came first may be anybody.

        Raises:
            ConfigurationError: its name or key is bound otherwise.
        """
        with writing(self._engine) as connection:
            live = _live_device(connection, name)
            if live is not None and live.public_key != public_key and live.state is DeviceState.PENDING:
                _change_state(connection, live, DeviceState.REVOKED)
                live = None
            device = _device_with_key(connection, name, live, public_key)
            return _change_state(connection, device, DeviceState.APPROVED)

    def approve_named(self, name: str, identifier: bytes) -> Device:
        """Let a device take part that has enrolled with the key that has this id.

        Raises:
            ConfigurationError: it has not.
        """
        with reading(self._engine) as connection:
            rows = connection.execute(select(devices).where(devices.c.name == name)).all()
        for device in map(device_of_row, rows):
            if device.key_id == identifier:
                return self.approve(name, device.public_key)
        raise ConfigurationError(
            f"no device {name!r} has enrolled with key {identifier.hex()}; {self.what_to_compare(name)}"
        )

    def what_to_compare(self, name: str) -> str:
        """What an operator who would approve a device by its name alone is told: a name can be anybody's."""
        with reading(self._engine) as connection:
            live = _live_device(connection, name)
        approve = f"run: broker-coordinator devices approve {name}"
        if live is None:
            return f"it has not enrolled, or its key is revoked; to let it in anyway, {approve} PUBLIC_KEY"
        return (
            f"{name} is {live.state.value} with key {live.key_id.hex()}; if `edge-agent key` on the device prints that"
            f" id, {approve} {live.key_id.hex()}; else give the public key that it prints"
        )

    def revoke(self, name: str) -> Device:
        """Stop accepting a device's key; versions from now on are made without what the device had sent.

        The key stays known as long as it is one of the last `MAX_REVOKED_KEYS`; one that is revoked already stays so.

        Raises:
            ConfigurationError: there is no such device.
        """
        with writing(self._engine) as connection:
            device = _live_device(connection, name) or _revoked_device(connection, name)
            if device is None:
                raise ConfigurationError(f"there is no device {name!r}; see: broker-coordinator devices list")
            if device.state is DeviceState.REVOKED:
                return device
            return revoke_device(connection, device)

    def forget(self, name: str, task: str | None = None) -> None:
        """Make versions, of a task or of all, from now on without what a device had sent; what it sends later counts.

        Raises:
            ConfigurationError: there is no such device.
        """
        with writing(self._engine) as connection:
            _require_known(connection, name)
            note_departure(connection, name, task)

    def require(self, name: str) -> None:
        """Raise ConfigurationError where there is no such device."""
        with reading(self._engine) as connection:
            _require_known(connection, name)


def hold_back(connection: Connection, public_key: VerifyKey) -> None:
    """Let an approved device await approval again; nothing of what it has sent is touched."""
    this = devices.c.public_key == bytes(public_key), devices.c.state == DeviceState.APPROVED.value
    held = {"state": DeviceState.PENDING.value, "changed": _NEXT_CHANGE}
    connection.execute(update(devices).where(*this).values(held))
    count_up(connection, DEVICES)


def revoke_key(connection: Connection, public_key: VerifyKey) -> None:
    """Stop accepting a key that is known, in a transaction that is open."""
    row = connection.execute(select(devices).where(devices.c.public_key == bytes(public_key))).one()
    revoke_device(connection, device_of_row(row))


def revoke_device(connection: Connection, device: Device) -> Device:
    """Stop accepting a device's key, in a transaction that is open."""
    note_departure(connection, device.name)
    revoked = _change_state(connection, device, DeviceState.REVOKED)
    _forget_oldest_revoked(connection)
    return revoked


def store_device(connection: Connection, device: Device) -> None:
    """Insert a device, or replace what it says about itself. Its state is the operator's: of a known device it only
    changes from pending to approved, which open enrolment does; so a commit can't undo a revocation made meanwhile. Its
    presence is that of its newest boot: where it has moved, its last will may come late, under the shard that it left.
    """
    key = bytes(device.public_key)
    told = _told_by_itself(device)
    is_later = devices.c.boot > device.boot
    newest = {each: case((is_later, devices.c[each]), else_=told[each]) for each in ("boot", "presence")}
    if device.state is DeviceState.PENDING:
        told["changed"] = _NEXT_CHANGE
    let_in = DeviceState.PENDING if device.state is DeviceState.APPROVED else None
    state = case((devices.c.state == let_in, DeviceState.APPROVED.value), else_=devices.c.state)
    changed = connection.execute(
        update(devices).where(devices.c.public_key == key).values(state=state, **told | newest)
    )
    if not changed.rowcount:
        row = {"public_key": key, "name": device.name, "state": device.state.value, "changed": _NEXT_CHANGE, **told}
        connection.execute(insert(devices).values(row))


def has_taken_name(connection: Connection, enrolled: Collection[Device]) -> bool:
    """Whether a name of these is bound to another key: one that enrolled in another shard at the same moment."""
    keys = {each.name: bytes(each.public_key) for each in enrolled if each.state is not DeviceState.REVOKED}
    if not keys:
        return False
    live = devices.c.name.in_(keys), devices.c.state != DeviceState.REVOKED.value
    bound = connection.execute(select(devices.c.name, devices.c.public_key).where(*live))
    return any(keys[name] != key for name, key in bound)


def forget_pending(connection: Connection, forgotten: Iterable[Device]) -> None:
    """Delete devices, unless an operator has let them in meanwhile."""
    for device in forgotten:
        this = devices.c.public_key == bytes(device.public_key)
        connection.execute(delete(devices).where(this, devices.c.state == DeviceState.PENDING.value))


def _forget_oldest_revoked(connection: Connection) -> None:
    revoked = devices.c.state == DeviceState.REVOKED.value
    oldest = select(devices.c.public_key).where(revoked).order_by(devices.c.changed.desc()).offset(MAX_REVOKED_KEYS)
    connection.execute(delete(devices).where(devices.c.public_key.in_(oldest)))


def _told_by_itself(device: Device) -> dict[str, Any]:
    return {
        "profile": device.profile,
        "software": device.software,
        "presence": device.presence.value,
        "boot": device.boot,
        "request_sequence": device.request_sequence,
    }


def _change_state(connection: Connection, device: Device, state: DeviceState) -> Device:
    store_device(connection, device)
    this = devices.c.public_key == bytes(device.public_key)
    changed = {"state": state.value, "is_used_twice": False, "changed": _NEXT_CHANGE}
    connection.execute(update(devices).where(this).values(changed))
    count_up(connection, DEVICES)
    return replace(device, state=state)


def _live_device(connection: Connection, name: str) -> Device | None:
    live = select(devices).where(devices.c.name == name, devices.c.state != DeviceState.REVOKED.value)
    row = connection.execute(live).first()
    return device_of_row(row) if row else None


def _require_known(connection: Connection, name: str) -> None:
    if _live_device(connection, name) is None and _revoked_device(connection, name) is None:
        raise ConfigurationError(f"there is no device {name!r}; see: broker-coordinator devices list")


def _revoked_device(connection: Connection, name: str) -> Device | None:
    row = connection.execute(select(devices).where(devices.c.name == name)).first()
    return device_of_row(row) if row else None


def _device_with_key(connection: Connection, name: str, live: Device | None, public_key: VerifyKey) -> Device:
    if live is not None and live.public_key != public_key:
        raise ConfigurationError(
            f"device {name!r} has another key; revoke that first: broker-coordinator devices revoke {name}"
        )
    row = connection.execute(select(devices).where(devices.c.public_key == bytes(public_key))).first()
    device = device_of_row(row) if row else Device(name, public_key, DeviceState.PENDING)
    if device.name != name:
        raise ConfigurationError(f"that key belongs to device {device.name!r}, not to {name!r}")
    return device


def device_of_row(row: Row[Any]) -> Device:
    """A row of the table, as admission has it."""
    return Device(
        row.name,
        VerifyKey(row.public_key),
        DeviceState(row.state),
        row.profile,
        row.software,
        PresenceState(row.presence),
        row.boot,
        row.request_sequence,
    )
