"""The sample socket is made with its mode, at a path that a socket can have, and over nothing that is not its own."""

import os
import pwd
import socket
import stat
from pathlib import Path

import pytest

from edge_agent.sources.bound_socket import MAX_PATH_BYTES, account_of, bound_socket
from fleet_protocol.errors import ConfigurationError


def test_socket_is_for_the_account_and_its_group_before_anybody_can_change_what_its_path_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "chmod", lambda *_, **__: 1 / 0)
    masked = os.umask(0)
    try:
        with bound_socket(tmp_path / "new/samples.sock"):
            assert stat.S_IMODE((tmp_path / "new/samples.sock").stat().st_mode) == 0o660
        assert os.umask(0) == 0
    finally:
        os.umask(masked)


def test_socket_that_nobody_serves_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(tmp_path / "samples.sock"))
    bound_socket(tmp_path / "samples.sock").close()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("/etc/hostname")])
def test_what_is_no_socket_stays_and_is_named(tmp_path: Path, make) -> None:
    make(tmp_path / "samples.sock")
    before = (tmp_path / "samples.sock").lstat()
    with pytest.raises(ConfigurationError, match=r"sample_socket .*samples\.sock: .*; choose another path"):
        bound_socket(tmp_path / "samples.sock")
    after = (tmp_path / "samples.sock").lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)


def test_program_is_known_by_the_account_that_the_kernel_names() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert account_of(ours) == f"account {pwd.getpwuid(os.getuid()).pw_name}"


@pytest.mark.parametrize(("more", "fits"), [(0, True), (1, False)])
def test_path_is_as_long_as_the_kernel_takes_it_and_no_longer(
    tmp_path: Path, monkeypatch, more: int, fits: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("é" + "s" * (MAX_PATH_BYTES - 2 + more))
    if fits:
        bound_socket(path).close()
    else:
        with pytest.raises(
            ConfigurationError, match="its path has 108 bytes, a socket's has at most 107; choose a shorter one"
        ):
            bound_socket(path)
        assert not path.exists()
