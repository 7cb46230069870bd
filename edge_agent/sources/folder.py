"""Readings from files that other programs put into a folder."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Literal

import msgspec

from edge_agent.sources.bounded_lines import READ_BYTES, HeldBytes, LineRefusedError, lines_of
from edge_agent.sources.file_job import FileJob, FileReading
from edge_agent.sources.source import ReadingIntake, SourcePlugin
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.configuration import Seconds

READER_COMMAND = (sys.executable, "-P", "-m", "edge_agent.sources.file_reader")
READER_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
TAKEN_FOLDER = "taken"
REFUSED_FOLDER = "refused"
UNFINISHED_SUFFIXES = (".part", ".tmp")
"""Of files that are still being written."""

FileState = tuple[int, int]
"""Size in bytes, and when it last changed, in ns."""


class FolderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[sources.settings]` of `kind = "folder"`."""

    path: Path
    """The folder. Files in a folder inside it that is named by a number have that label."""
    scan_seconds: Seconds = 60.0
    """How often to look for new files. One is read when it hasn't changed between two looks."""
    afterwards: Literal["keep", "delete"] = "keep"
    """What becomes of a file that was read: it is moved to `taken`, or deleted. One that can't be read is moved to
    `refused`."""
    sample_rate_hz: int | None = None
    """Sound with another rate is refused."""


async def watch_folder(settings: FolderSettings, readings: ReadingIntake) -> None:
    """Read every file that comes, until cancelled. While the task's schema isn't known, files wait.

    Raises:
        OSError: the folder can't be read, or a file can't be moved.
    """
    seen: dict[Path, FileState] = {}
    while True:
        found = files_in(settings.path)
        readings.tally.failure = ""
        for path in settled(seen, found):
            if (description := readings.description) is not None:
                await _take_file(path, description, settings, readings)
        seen = found
        await asyncio.sleep(settings.scan_seconds)


def files_in(folder: Path) -> dict[Path, FileState]:
    """Finished files in a folder, and in those inside it that are named by a number."""
    folders = (each for each in folder.iterdir() if each.is_dir() and not each.is_symlink())
    labelled = [each for each in folders if label_of(each) is not None]
    files = (path for each in (folder, *labelled) for path in each.iterdir() if path.is_file())
    names = (path for path in files if not path.name.startswith(".") and path.suffix not in UNFINISHED_SUFFIXES)
    return {path: ((status := path.stat()).st_size, status.st_mtime_ns) for path in names}


def settled(before: dict[Path, FileState], now: dict[Path, FileState]) -> list[Path]:
    """Those files that nobody has written to between two looks, in the order of their names."""
    return sorted(path for path, state in now.items() if before.get(path) == state)


def label_of(folder: Path) -> float | None:
    """The label of files in a folder with this name; None where it names none."""
    return float(folder.name) if folder.name.removeprefix("-").replace(".", "", 1).isdecimal() else None


async def _take_file(
    path: Path, description: TaskDescription, settings: FolderSettings, readings: ReadingIntake
) -> None:
    """Read one file, and put it away. It stays where it is when the disk had no room for one of its samples."""
    _require_can_put_away(path, settings)
    if _is_link(path):
        readings.refuse("unreadable_file", f"{path} is a symbolic link; put the file itself there")
        _put_away(path, settings, is_readable=False)
        return
    schema = description.input
    job = FileJob(
        str(path),
        list(schema.shape),
        schema.minimum,
        schema.maximum,
        mapped=readings.takes_names,
        label=label_of(path.parent) if path.parent != settings.path else None,
        sample_rate_hz=settings.sample_rate_hz,
    )
    is_readable = True
    async with aclosing(_readings_of(job)) as found:
        async for reading in found:
            if reading.refused:
                readings.refuse("unreadable_file", reading.refused)
                is_readable = not reading.ends
            elif readings.take_payload(bytes(reading.document)) == "not_stored":
                return
    _put_away(path, settings, is_readable=is_readable)


async def _readings_of(job: FileJob) -> AsyncGenerator[FileReading]:
    """What the child finds; should it die, that is the last reading."""
    process = await asyncio.create_subprocess_exec(
        *READER_COMMAND,
        str(os.getpid()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | READER_ENVIRONMENT,
        limit=READ_BYTES,
    )
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the reader was started without pipes")
    try:
        process.stdin.write(msgspec.json.encode(job))
        process.stdin.close()
        async for line in lines_of(process.stdout, HeldBytes()):
            yield msgspec.json.decode(line, type=FileReading)
        if code := await process.wait():
            yield FileReading(refused=f"{job.path}: the reader ended with code {code}; make it smaller", ends=True)
    except LineRefusedError as error:
        yield FileReading(refused=f"{job.path}: {error}; make its samples smaller", ends=True)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _require_can_put_away(path: Path, settings: FolderSettings) -> None:
    """Before a file is read: one that can't be moved would be read again and again.

    Raises:
        OSError: it could not be moved.
    """
    for folder in (TAKEN_FOLDER, REFUSED_FOLDER):
        _place(path, settings, folder).parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent}: the agent can't move files away; let its account write there")


def _is_link(path: Path) -> bool:
    """Followed, it would show who may write here what only the agent may read."""
    return path.is_symlink()


def _place(path: Path, settings: FolderSettings, folder: str) -> Path:
    return settings.path / folder / path.relative_to(settings.path)


def _put_away(path: Path, settings: FolderSettings, *, is_readable: bool) -> None:
    if is_readable and settings.afterwards == "delete":
        path.unlink()
        return
    path.replace(_place(path, settings, TAKEN_FOLDER if is_readable else REFUSED_FOLDER))


FOLDER_SOURCE = SourcePlugin(FolderSettings, watch_folder)
