"""The devices table: what an operator does to it, and what a running coordinator reads of it."""

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Engine, Row, case, insert, select, update

from broker_coordinator.admission.fleet_view import Device, DeviceState
from broker_coordinator.storage.change_counters import DEVICES, count_up
from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.departures import note_departure
from broker_coordinator.storage.schema import devices
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import VerifyKey
from fleet_protocol.kinds import PresenceState


class DeviceRegistry:
    """Lists, approves and revokes devices. A running coordinator notices (`change_counters`)."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def devices(self) -> list[Device]:
        """All devices by name; of one name, the live key last."""
        with reading(self._engine) as connection:
            query = select(devices).order_by(devices.c.name, devices.c.state.desc())
            return [_device(row) for row in connection.execute(query)]

    def approve(self, name: str, public_key: VerifyKey | None = None) -> Device:
        """Let a device take part. Without a key, it is the key with which the device has enrolled.

        Raises:
            ConfigurationError: there is no such device, or its name or key is bound otherwise.
        """
        with writing(self._engine) as connection:
            device = _live_device(connection, name)
            if public_key is not None:
                device = _device_with_key(connection, name, device, public_key)
            if device is None:
                raise ConfigurationError(
                    f"no device {name!r} has enrolled (or its key is revoked); list them with:"
                    f" broker-coordinator devices list; or give the key: devices approve {name} PUBLIC_KEY"
                )
            return _change_state(connection, device, DeviceState.APPROVED)

    def revoke(self, name: str) -> Device:
        """Stop accepting a device's key; versions from now on are made without what the device had sent.

        One that is revoked already stays so.

        Raises:
            ConfigurationError: there is no such device.
        """
        with writing(self._engine) as connection:
            device = _live_device(connection, name) or _revoked_device(connection, name)
            if device is None:
                raise ConfigurationError(f"there is no device {name!r}; see: broker-coordinator devices list")
            if device.state is DeviceState.REVOKED:
                return device
            note_departure(connection, name)
            return _change_state(connection, device, DeviceState.REVOKED)


def store_device(connection: Connection, device: Device) -> None:
    """Insert a device, or replace what it says about itself. Its state is the operator's: of a known device it only
    changes from pending to approved, which open enrolment does; so a commit can't undo a revocation made meanwhile.
    """
    key = bytes(device.public_key)
    told = _told_by_itself(device)
    let_in = DeviceState.PENDING if device.state is DeviceState.APPROVED else None
    state = case((devices.c.state == let_in, DeviceState.APPROVED.value), else_=devices.c.state)
    changed = connection.execute(update(devices).where(devices.c.public_key == key).values(state=state, **told))
    if not changed.rowcount:
        row = {"public_key": key, "name": device.name, "state": device.state.value, **told}
        connection.execute(insert(devices).values(row))


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
    connection.execute(update(devices).where(this).values(state=state.value))
    count_up(connection, DEVICES)
    return replace(device, state=state)


def _live_device(connection: Connection, name: str) -> Device | None:
    live = select(devices).where(devices.c.name == name, devices.c.state != DeviceState.REVOKED.value)
    row = connection.execute(live).first()
    return _device(row) if row else None


def _revoked_device(connection: Connection, name: str) -> Device | None:
    row = connection.execute(select(devices).where(devices.c.name == name)).first()
    return _device(row) if row else None


def _device_with_key(connection: Connection, name: str, live: Device | None, public_key: VerifyKey) -> Device:
    if live is not None and live.public_key != public_key:
        raise ConfigurationError(
            f"device {name!r} has another key; revoke that first: broker-coordinator devices revoke {name}"
        )
    row = connection.execute(select(devices).where(devices.c.public_key == bytes(public_key))).first()
    device = _device(row) if row else Device(name, public_key, DeviceState.PENDING)
    if device.name != name:
        raise ConfigurationError(f"that key belongs to device {device.name!r}, not to {name!r}")
    return device


def _device(row: Row[Any]) -> Device:
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
