"""Who has an account at the broker: approved devices, and whoever holds an invitation."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, func, select, update

from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.admission.invited import InvitationState
from broker_coordinator.storage.change_counters import DEVICES
from broker_coordinator.storage.database import reading, writing
from broker_coordinator.storage.schema import change_counters, devices, invitations
from fleet_protocol.broker_accounts import account_name
from fleet_protocol.keys import VerifyKey

HAVE_ACCOUNTS = (InvitationState.OPEN.value, InvitationState.SPENT.value)
"""A spent invitation has its account until it expires: the device may not have heard the answer, and whoever else
shows it is refused where an operator sees it."""

NAMES_AT_ONCE = 500
"""In one question to the database: SQLite before 3.32 takes 999 values."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A key that has an account. `coordinator_key`: id of the coordinator's key that its password follows from; None
    where it has had no account yet, or nobody has noted it.
    """

    device: str
    public_key: VerifyKey
    takes_part: bool
    coordinator_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Holders:
    """All of them until `until`, in seconds since 1970: then an invitation expires."""

    holders: list[Holder]
    until: float


def change_mark(engine: Engine) -> tuple[int, int]:
    """Changes whenever the holders may have."""
    counter = select(change_counters.c.number).where(change_counters.c.subject == DEVICES)
    with reading(engine) as connection:
        changed = connection.scalar(select(func.max(devices.c.changed)))
        return connection.scalar(counter) or 0, changed or 0


def read_holders(engine: Engine, now: float) -> Holders:
    """Who has an account at `now`, in seconds since 1970."""
    approved = select(devices.c.name, devices.c.public_key, devices.c.coordinator_key).where(
        devices.c.state == DeviceState.APPROVED.value
    )
    invited = select(
        invitations.c.device, invitations.c.public_key, invitations.c.expires, invitations.c.coordinator_key
    ).where(invitations.c.state.in_(HAVE_ACCOUNTS), invitations.c.expires > now)
    with reading(engine) as connection:
        holders = [
            Holder(row.name, VerifyKey(row.public_key), True, row.coordinator_key)
            for row in connection.execute(approved)
        ]
        rows = connection.execute(invited).all()
    holders += [Holder(row.device, VerifyKey(row.public_key), False, row.coordinator_key) for row in rows]
    return Holders(holders, min((row.expires for row in rows), default=float("inf")))


@dataclass(frozen=True, slots=True)
class Strays:
    """Accounts of nobody that has one now: of those that have `ended`, by revocation or the end of an invitation; of
    devices that are `waiting` for approval; of keys that are `unknown` here. `unnoted` are the keys of those among the
    waiting of which nobody has noted that they have an account.
    """

    ended: set[str]
    waiting: set[str]
    unknown: set[str]
    unnoted: list[VerifyKey]


def sort_strays(engine: Engine, accounts: Collection[str]) -> Strays:
    """What the database knows of accounts that none of the holders has."""
    ended: set[str] = set()
    waiting: set[str] = set()
    unnoted: list[VerifyKey] = []
    with reading(engine) as connection:
        for names in _in_parts(sorted({account.rpartition(".")[0] for account in accounts})):
            named = select(devices.c.name, devices.c.public_key, devices.c.state, devices.c.coordinator_key)
            for row in connection.execute(named.where(devices.c.name.in_(names))):
                public_key = VerifyKey(row.public_key)
                account = account_name(row.name, public_key)
                is_waiting = row.state == DeviceState.PENDING.value
                (waiting if is_waiting else ended).add(account)
                if is_waiting and account in accounts and row.coordinator_key is None:
                    unnoted.append(public_key)
            invited = select(invitations.c.device, invitations.c.public_key).where(invitations.c.device.in_(names))
            ended |= {account_name(row.device, VerifyKey(row.public_key)) for row in connection.execute(invited)}
    known = set(accounts)
    return Strays(known & ended, known & waiting, known - ended - waiting, unnoted)


def note_coordinator_key(engine: Engine, public_keys: Iterable[VerifyKey], coordinator_key: bytes) -> None:
    """Note which key the passwords of these devices follow from, before their accounts are made or where some are."""
    with writing(engine) as connection:
        for public_key in public_keys:
            this = devices.c.public_key == bytes(public_key)
            connection.execute(update(devices).where(this).values(coordinator_key=coordinator_key))


def _in_parts(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + NAMES_AT_ONCE] for start in range(0, len(names), NAMES_AT_ONCE))
