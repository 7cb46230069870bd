"""A device follows its coordinator's keys one after the other, and never back."""

import pytest

from edge_agent.shell.connection import pinned_keys
from edge_agent.shell.connection.pinned_keys import FILE, PinnedKeys
from fleet_protocol.errors import ProtocolError, Reason
from fleet_protocol.keys import SigningKey, write_verify_key

FIRST, SECOND, THIRD, OTHER = (SigningKey(bytes([number]) * 32).verify_key for number in range(1, 5))


@pytest.fixture
def folder(tmp_path):
    pinned = PinnedKeys(tmp_path, FIRST)
    pinned.follow(SECOND)
    pinned.follow(THIRD)
    return tmp_path


@pytest.mark.parametrize("configured", [FIRST, SECOND, THIRD])
def test_newest_key_is_trusted_whichever_of_the_followed_ones_is_configured(folder, configured):
    assert PinnedKeys(folder, configured).newest == THIRD


def test_owner_who_configures_another_key_begins_anew(folder):
    pinned = PinnedKeys(folder, OTHER)
    assert pinned.newest == OTHER
    pinned.follow(SECOND)
    assert PinnedKeys(folder, OTHER).newest == SECOND


@pytest.mark.parametrize("earlier", [FIRST, SECOND, THIRD])
def test_key_that_was_trusted_before_never_comes_back(folder, earlier):
    pinned = PinnedKeys(folder, FIRST)
    with pytest.raises(ProtocolError) as refused:
        pinned.follow(earlier)
    assert refused.value.reason is Reason.SEQUENCE_REUSED
    assert PinnedKeys(folder, FIRST).newest == THIRD


def test_key_that_is_not_on_the_disk_is_not_trusted(folder, monkeypatch):
    def refuse(*_arguments):
        raise OSError(28, "No space left on device")

    pinned = PinnedKeys(folder, FIRST)
    monkeypatch.setattr(pinned_keys, "replace_file", refuse)
    with pytest.raises(OSError, match="No space"):
        pinned.follow(OTHER)
    assert pinned.newest == THIRD
    assert PinnedKeys(folder, FIRST).newest == THIRD


@pytest.mark.parametrize("content", [b"\xff\xfe", b"12", b"0" * 64, "é".encode() * 64])
def test_damaged_file_is_said_and_the_configured_key_is_trusted(folder, caplog, content):
    (folder / FILE).write_bytes(content)
    assert PinnedKeys(folder, FIRST).newest == FIRST
    assert "event=pinned_keys_unreadable" in caplog.text


def test_file_that_was_cut_off_is_said_and_not_taken_for_a_shorter_chain(folder, caplog):
    whole = (folder / FILE).read_bytes()
    for cut in range(len(whole) - 1):
        caplog.clear()
        (folder / FILE).write_bytes(whole[:cut])
        assert PinnedKeys(folder, FIRST).newest == FIRST
        assert "event=pinned_keys_unreadable" in caplog.text


def test_file_of_an_earlier_release_is_read(folder):
    (folder / FILE).write_text("".join(f"{write_verify_key(key)}\n" for key in (FIRST, SECOND)))
    assert PinnedKeys(folder, FIRST).newest == SECOND


def test_chain_without_end_is_refused_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(pinned_keys, "MAX_PINNED_KEYS", 2)
    pinned = PinnedKeys(tmp_path, FIRST)
    pinned.follow(SECOND)
    with pytest.raises(ProtocolError, match="at most 2 are: write what `broker-coordinator key` prints"):
        pinned.follow(THIRD)
