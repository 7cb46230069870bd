"""What the broker's accounts tell of a database that was put back: who joined since, and who was revoked since."""

from collections.abc import Iterator

import pytest

from broker_coordinator.admission.fleet_view import DeviceState
from broker_coordinator.admission.invited import InvitationState, Invited
from broker_coordinator.serving import older_database
from broker_coordinator.serving.older_database import compare_accounts
from broker_coordinator.storage.broker_account_rows import Holder, note_coordinator_key, read_holders, sort_strays
from broker_coordinator.storage.database import Database, writing
from broker_coordinator.storage.device_registry import DeviceRegistry
from broker_coordinator.storage.invitation_registry import InvitationRegistry
from broker_coordinator.storage.journal import Journal
from broker_coordinator.storage.restores import Noticed, last_restore, note_restore
from fleet_protocol.broker_accounts import account_name
from fleet_protocol.keys import SigningKey, VerifyKey

NOW = 1_000_000_000.0
COORDINATOR = bytes(8)


def key(number: int) -> VerifyKey:
    return SigningKey(number.to_bytes(32, "big")).verify_key


class Fleet:
    """Devices that were let in and have accounts at the broker."""

    def __init__(self, database: Database) -> None:
        self.journal = Journal.open(database)
        self.registry = DeviceRegistry(self.journal.engine)

    def let_in(self, *names: str) -> list[str]:
        """Returns the names of their accounts."""
        first = 1 + len(self.registry.devices())
        made = {name: self.registry.approve(name, key(first + at)).public_key for at, name in enumerate(names)}
        note_coordinator_key(self.journal.engine, made.values(), COORDINATOR)
        return [account_name(name, public_key) for name, public_key in made.items()]

    def restored(self) -> None:
        with writing(self.journal.engine) as connection:
            note_restore(connection, Noticed.COMMAND, int(NOW))

    def compare(self, existing: set[str]) -> dict[str, DeviceState]:
        wanted = {account_name(each.device, each.public_key): each for each in self.wanted()}
        compare_accounts(self.journal.engine, existing, wanted)
        return {each.name: each.state for each in self.registry.devices()}

    def wanted(self) -> list[Holder]:
        return read_holders(self.journal.engine, NOW).holders


@pytest.fixture
def fleet(database: Database) -> Iterator[Fleet]:
    fleet = Fleet(database)
    yield fleet
    fleet.journal.close()


def test_whose_account_is_gone_awaits_approval_once_and_whose_name_has_another_key_is_revoked(fleet, caplog) -> None:
    attic, _, _ = fleet.let_in("attic-pi", "lawn-pi", "barn-pi")
    fleet.restored()
    states = fleet.compare({attic, account_name("barn-pi", key(99))})
    assert states == {
        "attic-pi": DeviceState.APPROVED,
        "lawn-pi": DeviceState.PENDING,
        "barn-pi": DeviceState.REVOKED,
    }
    assert 'devices="lawn-pi barn-pi"' in caplog.text or 'devices="barn-pi lawn-pi"' in caplog.text
    fleet.registry.approve("lawn-pi", key(2))
    assert fleet.compare({attic})["lawn-pi"] is DeviceState.APPROVED, "the operator has said so"
    assert caplog.text.count("devices_held_back") == 1


def test_without_a_restore_a_missing_account_is_only_made_again(fleet) -> None:
    attic, _ = fleet.let_in("attic-pi", "lawn-pi")
    assert set(fleet.compare({attic}).values()) == {DeviceState.APPROVED}
    assert last_restore(fleet.journal.engine) is None


@pytest.mark.parametrize("number", [1, 3])
def test_a_broker_that_has_lost_its_accounts_holds_nobody_back_and_says_what_nobody_knows(
    fleet, caplog, monkeypatch, number
) -> None:
    monkeypatch.setattr(older_database, "MAX_HELD_BACK", 2)
    names = [f"pi-{each}" for each in range(number)]
    fleet.let_in(*names)
    (other,) = fleet.let_in("other")
    fleet.restored()
    states = fleet.compare(set() if number == 1 else {other})
    assert set(states.values()) == {DeviceState.APPROVED}
    assert "event=revocations_unknown" in caplog.text


def test_a_device_that_never_had_an_account_is_not_missed(fleet) -> None:
    (attic,) = fleet.let_in("attic-pi")
    fleet.registry.approve("shed-pi", key(50))
    fleet.restored()
    assert fleet.compare({attic})["shed-pi"] is DeviceState.APPROVED


def test_unknown_accounts_stay_are_said_and_show_that_the_database_is_an_older_one(fleet, caplog) -> None:
    invitations = InvitationRegistry(fleet.journal.engine)
    invitations.add(Invited("shed-pi", key(70), 2**33), NOW)
    (attic,) = fleet.let_in("attic-pi")
    unknown = account_name("pond-pi", key(60))
    fleet.compare({attic, unknown})
    assert f"accounts={unknown}" in caplog.text
    (shed,) = invitations.invitations(NOW)
    assert shed.state is InvitationState.WITHDRAWN
    invitations.add(Invited("shed-pi", key(71), 2**33), NOW)
    fleet.compare({attic, unknown})
    assert invitations.invitations(NOW)[-1].state is InvitationState.OPEN, "what is made since then stays open"
    strays = sort_strays(fleet.journal.engine, {unknown, account_name("shed-pi", key(70))})
    assert (strays.unknown, strays.ended) == ({unknown}, {account_name("shed-pi", key(70))})
