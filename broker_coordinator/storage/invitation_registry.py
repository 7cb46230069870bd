"""The invitations table: what an operator does to it, and how an enrolment spends one in its own transaction."""

from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, update

from broker_coordinator.admission.invited import InvitationState, Invited
from broker_coordinator.storage.change_counters import DEVICES, count_up
from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.schema import devices, invitations
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import VerifyKey, key_id

MAX_OPEN_INVITATIONS = 1_000
"""Each has an account at the broker."""
MAX_KEPT_INVITATIONS = 10_000
"""In all; beyond that the oldest that are not open are forgotten."""

_OPEN = invitations.c.state == InvitationState.OPEN.value


class InvitationRegistry:
    """Lists, makes and withdraws invitations. `now` is in seconds since 1970."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def invitations(self, now: float) -> list[Invited]:
        """All that are remembered, in the order in which they were made."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(invitations).order_by(invitations.c.number)).all()
        return [_invited(row, now) for row in rows]

    def add(self, invited: Invited, now: float) -> None:
        """Add an open invitation; one that is open for the same device is withdrawn.

        Raises:
            ConfigurationError: the name has a key that the invitation does not replace, or too many are open.
        """
        with writing(self._engine) as connection:
            if not invited.replaces:
                _refuse_bound_name(connection, invited.device)
            _withdraw(connection, invited.device)
            open_now = select(func.count()).where(_OPEN, invitations.c.expires > now)
            if (connection.scalar(open_now) or 0) >= MAX_OPEN_INVITATIONS:
                raise ConfigurationError(
                    f"{MAX_OPEN_INVITATIONS} invitations are open, as many as there may be; withdraw some:"
                    " broker-coordinator devices withdraw NAME"
                )
            connection.execute(insert(invitations).values(_row(invited)))
            _forget_oldest(connection, now)
            count_up(connection, DEVICES)

    def withdraw(self, device: str) -> None:
        """Let nobody use the open invitation of a device any more.

        Raises:
            ConfigurationError: there is none.
        """
        with writing(self._engine) as connection:
            if not _withdraw(connection, device):
                raise ConfigurationError(
                    f"no invitation for {device!r} is open; see: broker-coordinator devices invitations"
                )
            count_up(connection, DEVICES)


def spend_invitation(connection: Connection, identifier: bytes) -> bool:
    """Let an enrolment use up an invitation, in the transaction that approves its device; False where it is not open
    any more.
    """
    this = invitations.c.identifier == identifier, _OPEN
    if not connection.execute(update(invitations).where(*this).values(state=InvitationState.SPENT.value)).rowcount:
        return False
    count_up(connection, DEVICES)
    return True


def bind_password(connection: Connection, public_key: VerifyKey, identifier: bytes) -> None:
    """Note that a device which was let in by an invitation takes its password from the coordinator's key that this
    names, which may be an earlier one by now.
    """
    named = select(invitations.c.coordinator_key).where(invitations.c.identifier == identifier).scalar_subquery()
    this = devices.c.public_key == bytes(public_key)
    connection.execute(update(devices).where(this).values(coordinator_key=named))


def note_refused_invitation(connection: Connection, device: str, detail: str) -> None:
    """Count an enrolment that was refused for its invitation, for operators to see."""
    newest = select(func.max(invitations.c.number)).where(invitations.c.device == device).scalar_subquery()
    told = {"refused": invitations.c.refused + 1, "last_refusal": detail}
    connection.execute(update(invitations).where(invitations.c.number == newest).values(told))


def withdraw_all(connection: Connection) -> list[str]:
    """Withdraw every open invitation; returns the devices that they were for."""
    names = list(connection.scalars(select(invitations.c.device).where(_OPEN).order_by(invitations.c.device)))
    connection.execute(update(invitations).where(_OPEN).values(state=InvitationState.WITHDRAWN.value))
    count_up(connection, DEVICES)
    return names


def _refuse_bound_name(connection: Connection, device: str) -> None:
    query = select(devices.c.public_key, devices.c.state).where(devices.c.name == device, devices.c.state != "revoked")
    if (row := connection.execute(query).first()) is not None:
        raise ConfigurationError(
            f"{device} is {row.state} already, with key {key_id(VerifyKey(row.public_key)).hex()}; if it is the same"
            f" device, made anew: broker-coordinator devices invite {device} --again; else choose another name"
        )


def _withdraw(connection: Connection, device: str) -> bool:
    this = invitations.c.device == device, _OPEN
    withdrawn = {"state": InvitationState.WITHDRAWN.value}
    return bool(connection.execute(update(invitations).where(*this).values(withdrawn)).rowcount)


def _forget_oldest(connection: Connection, now: float) -> None:
    kept = select(invitations.c.number).order_by(invitations.c.number.desc()).limit(MAX_KEPT_INVITATIONS)
    in_use = _OPEN & (invitations.c.expires > now)
    connection.execute(delete(invitations).where(invitations.c.number.not_in(kept), ~in_use))


def _row(invited: Invited) -> dict[str, Any]:
    return {
        "public_key": bytes(invited.public_key),
        "identifier": invited.identifier,
        "device": invited.device,
        "number": select(func.coalesce(func.max(invitations.c.number), 0) + 1).scalar_subquery(),
        "expires": invited.expires,
        "state": invited.state.value,
        "replaces": invited.replaces,
        "refused": 0,
        "last_refusal": "",
        "coordinator_key": invited.coordinator_key or None,
    }


def _invited(row: Row[Any], now: float) -> Invited:
    state = InvitationState(row.state)
    if state is InvitationState.OPEN and row.expires <= now:
        state = InvitationState.EXPIRED
    return Invited(
        row.device,
        VerifyKey(row.public_key),
        row.expires,
        state,
        row.replaces,
        row.refused,
        row.last_refusal,
        row.coordinator_key or b"",
    )
