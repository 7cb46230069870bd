"""A file that can't be written leaves nothing behind, and can be made when there is room."""

import errno
import os
import stat

import pytest

from fleet_host.key_files import make_key_file, read_key_file
from fleet_host.new_files import write_new_file
from fleet_protocol.errors import ConfigurationError


@pytest.fixture
def full_disk(monkeypatch):
    def refuse(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)


def test_file_is_there_whole_with_its_mode_and_never_overwritten(tmp_path):
    write_new_file(tmp_path / "file", b"content", 0o400)
    assert (tmp_path / "file").read_bytes() == b"content"
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o400
    with pytest.raises(FileExistsError):
        write_new_file(tmp_path / "file", b"other", 0o400)
    assert (tmp_path / "file").read_bytes() == b"content"


@pytest.mark.usefixtures("full_disk")
def test_full_disk_leaves_no_half_of_a_file(tmp_path):
    with pytest.raises(OSError, match="No space left"):
        write_new_file(tmp_path / "file", b"content", 0o600)
    assert list(tmp_path.iterdir()) == []


def test_key_that_found_no_room_is_made_by_the_same_command_later(tmp_path, full_disk, monkeypatch):
    with pytest.raises(ConfigurationError, match="No space left on device; nothing was written"):
        make_key_file(tmp_path / "device.key", "edge-agent")
    monkeypatch.undo()
    made = make_key_file(tmp_path / "device.key", "edge-agent")
    assert read_key_file(tmp_path / "device.key", "edge-agent").verify_key == made
