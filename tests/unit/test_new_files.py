"""A new file is there whole or not at all, and a disk that is full is said to be so."""

import errno
import os
import stat

import pytest

from broker_coordinator.commands.export import write_model
from fleet_host import new_files
from fleet_host.key_files import make_key_file
from fleet_host.program_folder import make_program_folder
from fleet_protocol.errors import ConfigurationError


@pytest.fixture
def full_disk(monkeypatch):
    def refuse(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(new_files.os, "fsync", refuse)


def test_new_file_has_content_and_mode_and_replaces_nothing(tmp_path):
    new_files.write_new_file(tmp_path / "a", b"content", 0o600)
    with pytest.raises(FileExistsError):
        new_files.write_new_file(tmp_path / "a", b"other")
    assert (tmp_path / "a").read_bytes() == b"content"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda file: make_key_file(file, "edge-agent"), "No space left on device; nothing was written"),
        (lambda file: write_model(file, b"weights"), "No space left on device; make room on that disk"),
    ],
)
def test_full_disk_leaves_no_file_that_would_be_in_the_way_when_there_is_room(tmp_path, full_disk, write, words):
    with pytest.raises(ConfigurationError, match=words):
        write(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_no_configuration_that_would_be_kept(tmp_path, full_disk):
    key = tmp_path / "agent.key"
    key.write_text("0" * 63 + "1")
    key.chmod(0o600)
    with pytest.raises(ConfigurationError, match="No space left on device; make room on that disk"):
        make_program_folder(tmp_path / "agent.toml", "", "agent.key", {}, "edge-agent")
    assert list(tmp_path.iterdir()) == [key]
