"""A folder into which others write: its files are listed, opened and moved by descriptors, and no link is followed.

Whoever may write there can put a link in the place of a file or a folder at any moment, so what was seen at a path says
nothing of what is opened there later: each step goes on from a descriptor, and what was opened is judged.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from fleet_protocol.errors import why_unreadable

UNFINISHED_SUFFIXES = (".part", ".tmp")
"""Of files that are still being written."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC

FileState = tuple[int, int]
"""Size in bytes, and when it last changed, in ns."""


class NoFileError(Exception):
    """What has a file's name is something else, or can't be read; what to do."""


class WatchedFolder:
    """Files are named by their paths in the folder `path`, which itself may be a link: its owner's."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def files(self) -> dict[PurePath, FileState]:
        """Finished files in the folder, and in those inside it that are named by a number.

        Raises:
            OSError: a folder can't be read.
        """
        found: dict[PurePath, FileState] = {}
        with self._opened() as root:
            labelled = [each.name for each in os.scandir(root) if _is_folder(each) and label_of(each.name) is not None]
            for parts in ((), *((name,) for name in labelled)):
                with self._opened(*parts) as folder:
                    found |= {PurePath(*parts, name): state for name, state in _finished_in(folder)}
        return found

    @contextmanager
    def opened(self, file: PurePath) -> Iterator[int]:
        """A descriptor from which the file can be read.

        Raises:
            NoFileError: it is a link, a pipe, a device, or can't be read.
            OSError: its folder can't be opened.
        """
        with self._opened(*file.parts[:-1]) as folder:
            try:
                descriptor = os.open(file.name, _FILE, dir_fd=folder)
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise NoFileError(f"{self.path / file} is a symbolic link; put the file itself there") from None
                words = why_unreadable(error, "write it again")
                raise NoFileError(f"{self.path / file}: {words}") from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise NoFileError(f"{self.path / file} is no regular file; put a file there")
            yield descriptor
        finally:
            os.close(descriptor)

    def require_movable(self, file: PurePath, folders: tuple[str, ...]) -> None:
        """Make the places in `folders` to which the file may be moved.

        Raises:
            OSError: it could not be moved there.
        """
        for name in folders:
            with self._opened(name, *file.parts[:-1], make=True):
                pass
        with self._opened(*file.parts[:-1]) as folder:
            if not os.access(".", os.W_OK, dir_fd=folder):
                place = self.path / file.parent
                raise PermissionError(f"{place}: the agent can't move files away; let its account write there")

    def move(self, file: PurePath, into: str) -> None:
        """Move a file, if it is still there, into a folder of the folder, to the place that it has in the latter.

        Raises:
            OSError: it can't be moved.
        """
        with (
            self._opened(*file.parts[:-1]) as source,
            self._opened(into, *file.parts[:-1], make=True) as target,
            suppress(FileNotFoundError),
        ):
            os.replace(file.name, file.name, src_dir_fd=source, dst_dir_fd=target)

    def delete(self, file: PurePath) -> None:
        """Delete a file, if it is still there.

        Raises:
            OSError: it can't be deleted.
        """
        with self._opened(*file.parts[:-1]) as folder, suppress(FileNotFoundError):
            os.unlink(file.name, dir_fd=folder)

    @contextmanager
    def _opened(self, *parts: str, make: bool = False) -> Iterator[int]:
        """A descriptor of a folder inside, each of the `parts` one below the other."""
        descriptor, place = os.open(self.path, _FOLDER), self.path
        try:
            for part in parts:
                place /= part
                descriptor = _entered(descriptor, part, place, make=make)
            yield descriptor
        finally:
            os.close(descriptor)


def label_of(folder: str) -> float | None:
    """The label of files in a folder with this name; None where it names none."""
    return float(folder) if folder.removeprefix("-").replace(".", "", 1).isdecimal() else None


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    return entry.is_dir(follow_symlinks=False)


def _finished_in(folder: int) -> Iterator[tuple[str, FileState]]:
    """The names of files, and of links to such."""
    for entry in os.scandir(folder):
        if entry.name.startswith(".") or entry.name.endswith(UNFINISHED_SUFFIXES):
            continue
        if entry.is_file():
            status = entry.stat(follow_symlinks=False)
            yield entry.name, (status.st_size, status.st_mtime_ns)


def _entered(descriptor: int, part: str, place: Path, *, make: bool) -> int:
    """The folder `part` of an open one, in place of the latter; at `place` for an error."""
    if make:
        with suppress(FileExistsError):
            os.mkdir(part, dir_fd=descriptor)
    try:
        entered = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
    except OSError as error:
        raise type(error)(
            error.errno, f"{error.strerror}: the agent follows no link here; make it a folder", str(place)
        ) from error
    os.close(descriptor)
    return entered
