"""A boot partition as files: mounted, or inside an image. Nothing here ever writes to a block device."""

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fleet_host.new_files import replace_file
from fleet_protocol.errors import ConfigurationError
from workbench.flashing.card_files import FOLDER
from workbench.flashing.partition_table import SECTOR_BYTES, NoBootPartitionError, boot_offset

BY_MOUNT = "mount its boot partition and name that folder with --boot"
MAX_SHOWN_CHARACTERS = 200
"""Of a path that is none, in an error."""
LARGEST_READ = 1024 * 1024
"""Bytes of a file that `flash` would change: all are texts of a few lines."""
_FREE = re.compile(r"([\d ]+)bytes free")


class BootPartition(Protocol):
    """Files by their path; `names` are those that are there, in lower case as FAT compares them."""

    def names(self) -> frozenset[str]:
        """Paths of the files at the top, and of those that flash has written."""

    def free_bytes(self) -> int:
        """Room that is left."""

    def read(self, path: str) -> bytes:
        """The content of a small file."""

    def write(self, path: str, content: bytes) -> None:
        """Write a file, whole, in the place of one that may be there; its folder is made."""

    def remove(self, path: str) -> None:
        """Remove a file, and its folder if nothing is left in it."""


@dataclass(frozen=True, slots=True)
class MountedPartition:
    """A folder."""

    folder: Path

    def names(self) -> frozenset[str]:
        """See `BootPartition`; only what may be read is a file of the card."""
        there = [*self.folder.iterdir(), *(self.folder / FOLDER).rglob("*")]
        found = (path for path in there if path.is_file() and not path.is_symlink())
        return frozenset(path.relative_to(self.folder).as_posix().lower() for path in found)

    def free_bytes(self) -> int:
        """See `BootPartition`."""
        return shutil.disk_usage(self.folder).free

    def read(self, path: str) -> bytes:
        """See `BootPartition`."""
        with (self.folder / path).open("rb") as file:
            return file.read(LARGEST_READ)

    def write(self, path: str, content: bytes) -> None:
        """See `BootPartition`."""
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, content)

    def remove(self, path: str) -> None:
        """See `BootPartition`."""
        target = self.folder / path
        target.unlink(missing_ok=True)
        for parent in target.relative_to(self.folder).parents:
            if parent != Path() and (self.folder / parent).is_dir() and not any((self.folder / parent).iterdir()):
                (self.folder / parent).rmdir()


@dataclass(frozen=True, slots=True)
class ImagePartition:
    """The FAT partition of an open image, `offset` bytes from its start, by mtools."""

    descriptor: int
    offset: int

    def names(self) -> frozenset[str]:
        """See `BootPartition`."""
        listed = self._run("mdir", "-b", "-/", "::").decode(errors="replace").splitlines()
        return frozenset(line.removeprefix("::/").lower() for line in listed if not line.endswith("/"))

    def free_bytes(self) -> int:
        """See `BootPartition`."""
        found = _FREE.search(self._run("mdir", "::").decode(errors="replace"))
        return int(found[1].replace(" ", "")) if found else 0

    def read(self, path: str) -> bytes:
        """See `BootPartition`."""
        return self._run("mcopy", "-n", f"::/{path}", "-")

    def write(self, path: str, content: bytes) -> None:
        """See `BootPartition`."""
        parts = path.split("/")[:-1]
        for depth in range(len(parts)):
            self._run("mmd", "-D", "s", f"::/{'/'.join(parts[: depth + 1])}", may_fail=True)
        self._run("mcopy", "-o", "-", f"::/{path}", given=content)

    def remove(self, path: str) -> None:
        """See `BootPartition`."""
        self._run("mdel", f"::/{path}", may_fail=True)
        parts = path.split("/")[:-1]
        for depth in range(len(parts), 0, -1):
            self._run("mrd", f"::/{'/'.join(parts[:depth])}", may_fail=True)  # refused where something is left

    def _run(self, tool: str, *arguments: str, given: bytes = b"", may_fail: bool = False) -> bytes:
        where = f"/proc/self/fd/{self.descriptor}@@{self.offset}"
        try:
            run = subprocess.run(
                [tool, "-i", where, *arguments],
                check=False,
                input=given,
                capture_output=True,
                pass_fds=[self.descriptor],
                env={**os.environ, "LC_ALL": "C", "MTOOLSRC": "/dev/null", "MTOOLS_SKIP_CHECK": "1"},
            )
        except FileNotFoundError:
            raise ConfigurationError(f"{tool} is not installed; apt install mtools, or {BY_MOUNT}") from None
        if run.returncode and not may_fail:
            said = run.stderr.decode(errors="replace").strip() or f"{tool} ends with {run.returncode}"
            raise OSError(0, said.replace("\n", "; "))
        return run.stdout


@contextmanager
def opened(boot: Path | None, image: Path | None) -> Iterator[BootPartition]:
    """The partition that exactly one of a mounted folder and an image file names.

    Raises:
        ConfigurationError: it is neither, is a block device, or has no boot partition.
    """
    if (boot is None) == (image is None):
        raise ConfigurationError("name one card: --boot FOLDER or --image FILE")
    path = boot or image
    assert path is not None  # noqa: S101 - for the type checker: one of them is named
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"{str(path)[:MAX_SHOWN_CHARACTERS]}: {why}; name what is there") from error
    if stat.S_ISBLK(mode):
        raise ConfigurationError(f"{path} is a block device, which flash never writes to; {BY_MOUNT}")
    if boot is not None:
        if not stat.S_ISDIR(mode):
            raise ConfigurationError(f"{path} is no folder; {BY_MOUNT}, or name an image with --image")
        yield MountedPartition(path)
        return
    if not stat.S_ISREG(mode):
        raise ConfigurationError(f"{path} is no file; name an image of Raspberry Pi OS")
    try:
        file = path.open("r+b")
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; let this account write it") from error
    with file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ConfigurationError(f"{path} is no file any more; name an image of Raspberry Pi OS")
        try:
            offset = boot_offset(file.read(SECTOR_BYTES), path.stat().st_size)
        except NoBootPartitionError as error:
            raise ConfigurationError(f"{path}: {error}") from error
        yield ImagePartition(file.fileno(), offset)
