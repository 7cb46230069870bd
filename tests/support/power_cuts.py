"""A power cut at any byte of the last transaction of a SQLite database, whose write-ahead log then ends there."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
PAGE_BYTES = 4096
FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES

State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class Step(Generic[State]):
    """One change of a database: its files before and after it, and what was in it."""

    name: str
    before: tuple[bytes, bytes]
    after: tuple[bytes, bytes]
    states: tuple[State, State]


def files(path: Path) -> tuple[bytes, bytes]:
    """Of the database at `path`: the file itself, and its write-ahead log."""
    log = path.with_name(path.name + "-wal")
    return path.read_bytes(), log.read_bytes() if log.exists() else b""


def recorded(
    path: Path, changes: Iterable[tuple[str, Callable[[], object]]], state: Callable[[], State]
) -> Iterator[Step[State]]:
    """Make each change, and say what it did to the files."""
    for name, change in changes:
        before, state_before = files(path), state()
        change()
        yield Step(name, before, files(path), (state_before, state()))


def every_byte(begin: int, end: int) -> Iterable[int]:
    """Each length that a log may be cut to."""
    return range(begin, end + 1)


def some_bytes(begin: int, end: int) -> Iterable[int]:
    """Those around the bounds of frames, and one in the header of each."""
    edges = {begin, end}
    for frame in range(HEADER_BYTES, end, FRAME_BYTES):
        edges |= {frame - 1, frame, frame + FRAME_HEADER_BYTES // 2}
    return sorted(length for length in edges if begin <= length <= end)


def cuts(
    step: Step[State], folder: Path, lengths: Callable[[int, int], Iterable[int]], *, lost: int | None = None
) -> Iterator[tuple[int, Path]]:
    """The database after each cut, in a folder of its own that is deleted again, and the length of its log.

    The log is cut behind what was there before the step; with `lost`, from that byte of it on.
    """
    content, log = step.after
    begin = len(step.before[1]) if lost is None else lost
    for length in lengths(min(begin, len(log)), len(log)):
        place = folder / "cut"
        place.mkdir()
        (place / "cut.db").write_bytes(content)
        (place / "cut.db-wal").write_bytes(log[:length])
        yield length, place / "cut.db"
        shutil.rmtree(place)
