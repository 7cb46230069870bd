"""What root makes in a program's folder belongs to the program: a command may come before its first start."""

import os
import stat

from fleet_host.owned_files import make_owned_file


def test_file_that_root_makes_belongs_to_the_account_of_its_folder(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda path, user, group: given.append((path, user, group)))
    make_owned_file(tmp_path / "coordinator.db")
    folder = tmp_path.stat()
    assert given == [(tmp_path / "coordinator.db", folder.st_uid, folder.st_gid)]


def test_file_of_any_other_account_is_its_own_and_nobody_elses(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "chown", lambda *_: 1 / 0)
    make_owned_file(tmp_path / "coordinator.db")
    assert stat.S_IMODE((tmp_path / "coordinator.db").stat().st_mode) == 0o600


def test_file_that_is_there_stays_as_it_is(tmp_path):
    (tmp_path / "coordinator.db").write_text("rows")
    make_owned_file(tmp_path / "coordinator.db")
    assert (tmp_path / "coordinator.db").read_text() == "rows"
