"""What root makes in a program's folder belongs to the program: a command may come before its first start."""

import os
import stat

from fleet_host.new_files import replace_file
from fleet_host.owned_files import make_owned_file


def test_file_that_root_makes_belongs_to_the_account_of_its_folder(tmp_path, monkeypatch):
    given = as_root(monkeypatch)
    make_owned_file(tmp_path / "coordinator.db")
    folder = tmp_path.stat()
    assert given == [((tmp_path / "coordinator.db").stat().st_ino, folder.st_uid, folder.st_gid)]


def test_root_gives_away_nothing_that_the_account_has_linked_in_the_place_of_its_file(tmp_path, monkeypatch):
    """A link that leads nowhere yet is no file: only making it would tell."""
    given = as_root(monkeypatch)
    (tmp_path / "coordinator.db").symlink_to(tmp_path / "another")
    make_owned_file(tmp_path / "coordinator.db")
    assert given == []
    assert not (tmp_path / "another").exists()


def test_root_replaces_a_file_for_its_owner_by_the_file_that_it_has_made(tmp_path, monkeypatch):
    given = as_root(monkeypatch)
    (tmp_path / "coordinator.key").write_text("old")
    owner = (tmp_path / "coordinator.key").stat()
    replace_file(tmp_path / "coordinator.key", b"new", 0o600)
    assert given == [((tmp_path / "coordinator.key").stat().st_ino, owner.st_uid, owner.st_gid)]


def as_root(monkeypatch) -> list[tuple[int, int, int]]:
    """Inode, user and group of every file that is given away."""
    given = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "fchown", lambda file, user, group: given.append((os.fstat(file).st_ino, user, group)))
    return given


def test_file_of_any_other_account_is_its_own_and_nobody_elses(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "fchown", lambda *_: 1 / 0)
    make_owned_file(tmp_path / "coordinator.db")
    assert stat.S_IMODE((tmp_path / "coordinator.db").stat().st_mode) == 0o600


def test_file_that_is_there_stays_as_it_is(tmp_path):
    (tmp_path / "coordinator.db").write_text("rows")
    make_owned_file(tmp_path / "coordinator.db")
    assert (tmp_path / "coordinator.db").read_text() == "rows"
