"""Key files: only their owner can read them, and whatever is wrong with one is said in a sentence."""

import pytest

from fleet_host import key_files
from fleet_host.key_files import add_newest_key, make_key_file, read_key_file, read_key_ring_file
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import (
    SigningKey,
    VerifyKey,
    key_id,
    read_key_ring,
    read_signing_key,
    read_verify_key,
    verifies,
    write_key_ring,
    write_signing_key,
    write_verify_key,
)
from fleet_protocol.limits import MAX_COORDINATOR_KEYS

KEY = SigningKey(bytes(range(32)))
SOURCE = "`broker-coordinator key`"
PRIVATE = 0o100600
RING = SigningKey(b"\1" * 32), SigningKey(b"\2" * 32)
RING_BYTES = len(write_key_ring(RING))
MALFORMED = ["", "zz" * 32, "00" * 31, "00" * 33, "-----BEGIN PRIVATE KEY-----", "0x" + "00" * 31, "é" * 64]


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "device.key"
    make_key_file(path, "edge-agent")
    return path


def refusal_of(path, program="edge-agent"):
    with pytest.raises(ConfigurationError) as caught:
        read_key_file(path, program)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_key_is_read_back_as_it_was_written():
    assert read_signing_key(write_signing_key(KEY), "device.key") == KEY
    assert read_verify_key(write_verify_key(KEY.verify_key), "coordinator_key", SOURCE) == KEY.verify_key


def test_key_file_that_was_made_is_its_owners_alone_and_is_never_overwritten(tmp_path):
    path = tmp_path / "device.key"
    made = make_key_file(path, "edge-agent")
    assert path.stat().st_mode == PRIVATE
    assert read_key_file(path, "edge-agent").verify_key == made
    with pytest.raises(ConfigurationError, match=f"never overwritten.*public key is {write_verify_key(made)}"):
        make_key_file(path, "edge-agent")
    assert read_key_file(path, "edge-agent").verify_key == made


def test_key_file_that_can_not_be_made_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nowhere/device\.key: No such file"):
        make_key_file(tmp_path / "nowhere" / "device.key", "edge-agent")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o610, 0o602, 0o644, 0o777])
def test_key_file_open_to_others_is_refused_with_the_remedy(key_file, mode):
    key_file.chmod(mode)
    said = refusal_of(key_file)
    assert f"mode {mode:04o}" in said
    assert f"run: chmod 600 {key_file}" in said
    key_file.chmod(0o600)
    assert read_key_file(key_file, "edge-agent")


@pytest.mark.parametrize("program", ["edge-agent", "broker-coordinator"])
@pytest.mark.parametrize("content", [*(text.encode() for text in MALFORMED), bytes(range(200, 232)), b"\xff\xfe" * 32])
def test_file_that_holds_no_key_is_refused_with_the_command_that_makes_one(key_file, content, program):
    key_file.write_bytes(content)
    said = refusal_of(key_file, program)
    assert "expected 64 hex digits" in said
    assert f"{program} keygen" in said


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_public_key_is_refused(text):
    with pytest.raises(ConfigurationError, match=f"coordinator_key: expected 64 hex digits.*; {SOURCE} prints it"):
        read_verify_key(text, "coordinator_key", SOURCE)


def test_public_key_of_zeros_holds_a_place_and_is_refused():
    with pytest.raises(ConfigurationError, match=f"coordinator_key is all zeros.*; {SOURCE} prints the key"):
        read_verify_key("00" * 32, "coordinator_key", SOURCE)


def test_error_never_shows_what_the_key_file_holds(key_file):
    key_file.write_text("5ec2e7" * 10)
    assert "5ec2e7" not in refusal_of(key_file)


def test_key_file_that_may_not_be_read_is_not_made_again(key_file, monkeypatch):
    def refuse(*_arguments, **_named):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(key_file), "open", refuse)
    said = refusal_of(key_file)
    assert "Permission denied; let the account that runs this read the file" in said
    assert "keygen" not in said


def test_missing_key_file_says_how_to_make_one(tmp_path):
    said = refusal_of(tmp_path / "device.key", "broker-coordinator")
    assert "No such file" in said
    assert "broker-coordinator keygen" in said


def test_key_of_small_order_verifies_nothing():
    # Over the neutral point, the signature (neutral point, 0) fits every message.
    neutral = bytes([1]) + bytes(31)
    assert not verifies(VerifyKey(neutral), b"any message", neutral + bytes(32))


def test_key_ids_differ_and_have_eight_bytes():
    identifiers = {key_id(SigningKey(bytes([number]) * 32).verify_key) for number in range(50)}
    assert len(identifiers) == 50
    assert {len(identifier) for identifier in identifiers} == {8}


def test_rotated_key_stands_above_those_that_it_follows_in_a_file_for_its_owner_alone(tmp_path):
    path = tmp_path / "coordinator.key"
    first = make_key_file(path, "broker-coordinator")
    second, third = (add_newest_key(path, "broker-coordinator") for _ in range(2))
    assert [key.verify_key for key in read_key_ring_file(path, "broker-coordinator")] == [third, second, first]
    assert path.stat().st_mode == PRIVATE
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ConfigurationError, match=f"never overwritten.*public key is {write_verify_key(third)}"):
        make_key_file(path, "broker-coordinator")
    with pytest.raises(ConfigurationError, match="expected 64 hex digits"):
        read_key_file(path, "edge-agent")


def test_key_file_that_can_not_be_written_stays_as_it_is(tmp_path, monkeypatch):
    def refuse(*_arguments):
        raise OSError(28, "No space left on device")

    path = tmp_path / "coordinator.key"
    first = make_key_file(path, "broker-coordinator")
    monkeypatch.setattr(key_files, "replace_file", refuse)
    with pytest.raises(ConfigurationError, match="it stays as it is: make room on that disk"):
        add_newest_key(path, "broker-coordinator")
    assert [key.verify_key for key in read_key_ring_file(path, "broker-coordinator")] == [first]


def test_full_key_file_says_which_line_to_delete(tmp_path):
    path = tmp_path / "coordinator.key"
    make_key_file(path, "broker-coordinator")
    for _ in range(MAX_COORDINATOR_KEYS - 1):
        add_newest_key(path, "broker-coordinator")
    with pytest.raises(ConfigurationError, match="delete its first line, which counts them, and its last"):
        add_newest_key(path, "broker-coordinator")


@pytest.mark.parametrize("cut", range(RING_BYTES - 1))
def test_key_ring_that_was_cut_off_is_never_taken_for_a_shorter_one(cut):
    with pytest.raises(ConfigurationError, match=r"2|64 hex digits"):
        read_key_ring(write_key_ring(RING)[:cut], "coordinator.key")


def test_key_of_a_ring_that_has_changed_is_not_taken():
    text = write_key_ring(RING)
    with pytest.raises(ConfigurationError, match="if you have changed it yourself, delete its first line too"):
        read_key_ring(text.replace("01" * 32, "03" * 32), "coordinator.key")


def test_key_ring_of_an_earlier_release_is_read_and_so_is_one_that_was_changed_by_hand():
    earlier = "".join(map(write_signing_key, RING))
    assert read_key_ring(earlier, "coordinator.key") == RING
    assert read_key_ring(write_key_ring(RING).partition("\n")[2], "coordinator.key") == RING


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (write_signing_key(KEY) * 2, "a key stands there twice"),
        (write_signing_key(KEY) + "12\n", "key 2: expected 64 hex digits"),
        ("", "key 1: expected 64 hex digits"),
        (
            write_key_ring(tuple(SigningKey(bytes([n]) * 32) for n in range(MAX_COORDINATOR_KEYS + 1))),
            "delete the last",
        ),
    ],
)
def test_key_ring_that_is_none_is_refused_with_the_line(text, words):
    with pytest.raises(ConfigurationError, match=words):
        read_key_ring(text, "coordinator.key")
