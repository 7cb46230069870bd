"""An invitation is one line that is whole or refused; what follows from its keys is the same on both sides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_protocol.broker_accounts import account_name, own_password, password_of
from fleet_protocol.device_invitation import (
    PREFIX,
    DeviceInvitation,
    prove_invitation,
    proves_invitation,
    read_invitation,
    write_invitation,
)
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey, VerifyKey

INVITATION = DeviceInvitation(
    "broker.example",
    8883,
    b"\x01" * 32,
    b"\x02" * 32,
    "home",
    "0",
    "kitchen-pi",
    b"\x03" * 16,
    1_800_000_000,
    ["digits"],
)
LINE = write_invitation(INVITATION)
COORDINATOR, DEVICE, STRANGER = (SigningKey(bytes([number]) * 32) for number in (1, 2, 3))
TOPIC = "edgeflock/v1/home/0/kitchen-pi/up"


def test_an_invitation_reads_as_it_was_written_also_where_a_terminal_has_broken_the_line() -> None:
    assert read_invitation(LINE) == INVITATION
    assert read_invitation(f"  {LINE[:80]}\n  {LINE[80:]}\n") == INVITATION


@pytest.mark.parametrize("length", range(len(LINE)))
def test_an_invitation_that_is_cut_off_anywhere_is_refused(length: int) -> None:
    with pytest.raises(ConfigurationError, match="devices invite NAME"):
        read_invitation(LINE[:length])


@given(st.text(max_size=200), st.booleans())
def test_any_other_text_is_refused_in_words(text: str, with_prefix: bool) -> None:
    with pytest.raises(ConfigurationError):
        read_invitation((PREFIX if with_prefix else "") + text)


@pytest.mark.parametrize("at", [len(PREFIX), 40, len(LINE) - 3])
def test_an_altered_invitation_is_refused(at: int) -> None:
    other = "A" if LINE[at] != "A" else "B"
    with pytest.raises(ConfigurationError, match="cut off or altered"):
        read_invitation(LINE[:at] + other + LINE[at + 1 :])


def test_both_sides_compute_the_same_password_and_nobody_else_does() -> None:
    password = own_password(DEVICE, COORDINATOR.verify_key)
    assert password == password_of(DEVICE.verify_key, COORDINATOR)
    others = {
        own_password(STRANGER, COORDINATOR.verify_key),
        own_password(DEVICE, STRANGER.verify_key),
        password_of(STRANGER.verify_key, COORDINATOR),
    }
    assert password not in others
    assert account_name("kitchen-pi", DEVICE.verify_key) != account_name("kitchen-pi", STRANGER.verify_key)


def test_a_key_that_is_no_point_of_the_curve_has_no_password() -> None:
    with pytest.raises(ConfigurationError, match="no valid Ed25519 public key"):
        password_of(VerifyKey(b"\x01" + bytes(31)), COORDINATOR)


def test_a_proof_is_good_for_one_key_on_one_topic() -> None:
    token = INVITATION.key()
    proof = prove_invitation(token, TOPIC, DEVICE.verify_key)
    assert proves_invitation(token.verify_key, proof, TOPIC, DEVICE.verify_key)
    assert not proves_invitation(token.verify_key, proof, TOPIC, STRANGER.verify_key)
    assert not proves_invitation(token.verify_key, proof, TOPIC.replace("kitchen", "attic"), DEVICE.verify_key)
    assert not proves_invitation(STRANGER.verify_key, proof, TOPIC, DEVICE.verify_key)
    assert not proves_invitation(token.verify_key, b"", TOPIC, DEVICE.verify_key)
