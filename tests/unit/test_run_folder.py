"""A demo's folder: emptied of an earlier demo's files, left alone where it holds others, one demo at a time."""

import pytest

from fleet_protocol.errors import ConfigurationError
from workbench.demo.run_folder import MARKER, claimed


def test_folder_is_made_and_what_an_earlier_demo_left_in_it_goes(tmp_path):
    folder = tmp_path / "a" / "demo-run"
    with claimed(folder):
        (folder / "pi-01").mkdir()
        (folder / "pi-01" / "agent.log").write_text("")
        (folder / "link").symlink_to(tmp_path)
        (folder / "summary.json").write_text("")
    with claimed(folder):
        assert [path.name for path in folder.iterdir()] == [MARKER]
    assert tmp_path.exists()


def test_second_demo_in_a_folder_is_refused_and_changes_nothing(tmp_path):
    folder = tmp_path / "demo-run"
    with claimed(folder):
        (folder / "coordinator.db").write_text("in use")
        with (
            pytest.raises(ConfigurationError, match=r"--out .*demo-run: a demo is running there; .*another"),
            claimed(folder),
        ):
            pass
        assert (folder / "coordinator.db").read_text() == "in use"
    with claimed(folder):
        assert not (folder / "coordinator.db").exists()


def test_folder_with_other_files_is_left_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigurationError, match="files that no demo made"), claimed(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigurationError, match=r"file/demo-run: Not a directory"),
        claimed(tmp_path / "file" / "demo-run"),
    ):
        pass
