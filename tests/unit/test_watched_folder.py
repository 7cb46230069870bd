"""Whoever may write into a watched folder can swap its files and folders at any moment, and leads the agent nowhere."""

import os
from pathlib import Path, PurePath

import pytest

from edge_agent.sources.watched_folder import NoFileError, WatchedFolder

FILE = PurePath("3/a.csv")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox/3").mkdir(parents=True)
    (tmp_path / "inbox" / FILE).write_text("theirs")
    (tmp_path / "state").mkdir()
    (tmp_path / "state/a.csv").write_text("the agent's")
    return tmp_path / "inbox"


def swap(path: Path, target: Path) -> None:
    """Put a link in the place of a file or folder that was looked at."""
    path.rename(path.with_name("away"))
    path.symlink_to(target)


def content(folder: WatchedFolder, file: PurePath) -> bytes:
    with folder.opened(file) as descriptor:
        return os.read(descriptor, 100)


def test_file_is_read_moved_and_deleted(inbox: Path) -> None:
    folder = WatchedFolder(inbox)
    assert content(folder, FILE) == b"theirs"
    folder.require_movable(FILE, ("taken", "refused"))
    folder.move(FILE, "taken")
    assert (inbox / "taken/3/a.csv").read_text() == "theirs"
    (inbox / FILE).write_text("again")
    folder.delete(FILE)
    assert folder.files() == {}


def test_folder_that_its_owner_has_named_by_a_link_is_followed(inbox: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(inbox)
    assert content(WatchedFolder(tmp_path / "link"), FILE) == b"theirs"


def test_link_in_the_place_of_a_file_is_refused_in_words(inbox: Path, tmp_path: Path) -> None:
    swap(inbox / FILE, tmp_path / "state/a.csv")
    with pytest.raises(NoFileError, match=r"3/a\.csv is a symbolic link; put the file itself there"):
        content(WatchedFolder(inbox), FILE)


def test_pipe_in_the_place_of_a_file_neither_blocks_nor_is_read(inbox: Path) -> None:
    (inbox / FILE).unlink()
    os.mkfifo(inbox / FILE)
    with pytest.raises(NoFileError, match="is no regular file; put a file there"):
        content(WatchedFolder(inbox), FILE)


@pytest.mark.parametrize("step", ["opened", "require_movable", "move", "delete"])
def test_link_in_the_place_of_a_folder_leads_nowhere(inbox: Path, tmp_path: Path, step: str) -> None:
    swap(inbox / "3", tmp_path / "state")
    steps = {
        "opened": lambda folder: content(folder, FILE),
        "require_movable": lambda folder: folder.require_movable(FILE, ("taken",)),
        "move": lambda folder: folder.move(FILE, "taken"),
        "delete": lambda folder: folder.delete(FILE),
    }
    with pytest.raises(OSError, match="the agent follows no link here; make it a folder") as refused:
        steps[step](WatchedFolder(inbox))
    assert refused.value.filename == str(inbox / "3")
    assert (tmp_path / "state/a.csv").read_text() == "the agent's"


@pytest.mark.parametrize("place", ["taken", "taken/3"])
def test_file_is_moved_through_no_link_over_one_of_the_agents(inbox: Path, tmp_path: Path, place: str) -> None:
    (inbox / place).parent.mkdir(exist_ok=True)
    (inbox / place).symlink_to(tmp_path / "state")
    with pytest.raises(OSError, match="the agent follows no link here"):
        WatchedFolder(inbox).move(FILE, "taken")
    assert (inbox / FILE).read_text() == "theirs"
    assert (tmp_path / "state/a.csv").read_text() == "the agent's"
    assert list((tmp_path / "state").iterdir()) == [tmp_path / "state/a.csv"]
