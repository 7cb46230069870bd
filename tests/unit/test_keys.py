"""Key files: only their owner can read them, and whatever is wrong with one is said in a sentence."""

import pytest

from edge_agent.shell.identity import load_signing_key
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import (
    SigningKey,
    VerifyKey,
    key_id,
    read_signing_key,
    read_verify_key,
    verifies,
    write_signing_key,
    write_verify_key,
)

KEY = SigningKey(bytes(range(32)))
PRIVATE = 0o100600
MALFORMED = ["", "zz" * 32, "00" * 31, "00" * 33, "-----BEGIN PRIVATE KEY-----", "0x" + "00" * 31, "é" * 64]


def test_key_is_read_back_as_it_was_written():
    assert read_signing_key(write_signing_key(KEY), PRIVATE, "device.key") == KEY
    assert read_verify_key(write_verify_key(KEY.verify_key), "coordinator_key") == KEY.verify_key


@pytest.mark.parametrize("mode", [0o100640, 0o100604, 0o100620, 0o100610, 0o100602, 0o100644, 0o100777])
def test_key_file_open_to_others_is_refused_with_the_remedy(mode):
    with pytest.raises(ConfigurationError, match=rf"mode {mode & 0o777:04o}.*chmod 600 device\.key"):
        read_signing_key(write_signing_key(KEY), mode, "device.key")


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_key_is_refused_with_the_remedy(text):
    with pytest.raises(ConfigurationError, match=r"device\.key: expected 64 hex digits.*edge-agent keygen"):
        read_signing_key(text, PRIVATE, "device.key")
    with pytest.raises(ConfigurationError, match="coordinator_key: expected 64 hex digits"):
        read_verify_key(text, "coordinator_key")


def test_error_never_shows_what_the_key_file_holds():
    secret = "5ec2e7" * 10
    with pytest.raises(ConfigurationError) as caught:
        read_signing_key(secret, PRIVATE, "device.key")
    assert "5ec2e7" not in str(caught.value)


@pytest.mark.parametrize("content", [bytes(range(200, 232)), b"\xff\xfe" * 32], ids=["raw key", "UTF-16"])
def test_key_file_that_is_no_text_is_refused(tmp_path, content):
    path = tmp_path / "device.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="expected 64 hex digits"):
        load_signing_key(path)


def test_permissions_are_those_of_the_file_itself(tmp_path):
    path = tmp_path / "device.key"
    path.write_text(write_signing_key(KEY))
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="0644"):
        load_signing_key(path)
    path.chmod(0o600)
    assert load_signing_key(path) == KEY


def test_missing_key_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigurationError, match="edge-agent keygen"):
        load_signing_key(tmp_path / "device.key")


def test_key_of_small_order_verifies_nothing():
    # Over the neutral point, the signature (neutral point, 0) fits every message.
    neutral = bytes([1]) + bytes(31)
    assert not verifies(VerifyKey(neutral), b"any message", neutral + bytes(32))


def test_key_ids_differ_and_have_eight_bytes():
    identifiers = {key_id(SigningKey(bytes([number]) * 32).verify_key) for number in range(50)}
    assert len(identifiers) == 50
    assert {len(identifier) for identifier in identifiers} == {8}
