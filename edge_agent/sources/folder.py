"""Readings from files that other programs put into a folder."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path, PurePath
from typing import Annotated, Literal

import msgspec

from edge_agent.sources.bounded_lines import READ_BYTES, HeldBytes, LineRefusedError, lines_of
from edge_agent.sources.file_job import FileJob, FileReading
from edge_agent.sources.source import ReadingIntake, SourcePlugin
from edge_agent.sources.watched_folder import FileState, NoFileError, WatchedFolder, label_of
from fleet_protocol.configuration import Seconds
from fleet_protocol.task_description import TaskDescription

READER_COMMAND = (sys.executable, "-P", "-m", "edge_agent.sources.file_reader")
READER_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
TAKEN_FOLDER = "taken"
REFUSED_FOLDER = "refused"
MAX_SAMPLE_RATE_HZ = 100_000_000
"""More than any recorder has."""


class FolderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[sources.settings]` of `kind = "folder"`."""

    path: Path
    """The folder. Files in a folder inside it that is named by a number have that label."""
    scan_seconds: Seconds = 60.0
    """How often to look for new files. One is read when it hasn't changed between two looks."""
    afterwards: Literal["keep", "delete"] = "keep"
    """What becomes of a file that was read: it is moved to `taken`, or deleted. One that can't be read is moved to
    `refused`."""
    sample_rate_hz: Annotated[int, msgspec.Meta(ge=1, le=MAX_SAMPLE_RATE_HZ)] | None = None
    """Sound with another rate is refused."""


async def watch_folder(settings: FolderSettings, readings: ReadingIntake) -> None:
    """Read every file that comes, until cancelled. While the task's schema isn't known, files wait.

    Raises:
        OSError: the folder can't be read, or a file can't be moved.
    """
    folder = WatchedFolder(settings.path)
    seen: dict[PurePath, FileState] = {}
    while True:
        found = folder.files()
        readings.tally.failure = ""
        for file in settled(seen, found):
            if (description := readings.description) is not None:
                await _take_file(folder, file, description, settings, readings)
        seen = found
        await asyncio.sleep(settings.scan_seconds)


def settled(before: dict[PurePath, FileState], now: dict[PurePath, FileState]) -> list[PurePath]:
    """Those files that nobody has written to between two looks, in the order of their names."""
    return sorted(file for file, state in now.items() if before.get(file) == state)


async def _take_file(
    folder: WatchedFolder,
    file: PurePath,
    description: TaskDescription,
    settings: FolderSettings,
    readings: ReadingIntake,
) -> None:
    """Read one file, and put it away. It stays where it is when the disk had no room for one of its samples."""
    folder.require_movable(file, (TAKEN_FOLDER, REFUSED_FOLDER))  # else it would be read again and again
    is_readable: bool | None
    try:
        with folder.opened(file) as descriptor:
            is_readable = await _take_readings(
                _job(folder.path / file, descriptor, description, settings, readings), readings
            )
    except NoFileError as error:
        readings.refuse("unreadable_file", str(error))
        is_readable = False
    if is_readable is None:
        return
    if is_readable and settings.afterwards == "delete":
        folder.delete(file)
    else:
        folder.move(file, TAKEN_FOLDER if is_readable else REFUSED_FOLDER)


def _job(
    path: Path, descriptor: int, description: TaskDescription, settings: FolderSettings, readings: ReadingIntake
) -> FileJob:
    schema = description.input
    return FileJob(
        str(path),
        list(schema.shape),
        schema.minimum,
        schema.maximum,
        mapped=readings.takes_names,
        label=label_of(path.parent.name) if path.parent != settings.path else None,
        sample_rate_hz=settings.sample_rate_hz,
        descriptor=descriptor,
    )


async def _take_readings(job: FileJob, readings: ReadingIntake) -> bool | None:
    """Whether the file could be read to its end; None where the disk had no room for one of its samples."""
    is_readable = True
    async with aclosing(_readings_of(job)) as found:
        async for reading in found:
            if reading.refused:
                readings.refuse("unreadable_file", reading.refused)
                is_readable = not reading.ends
            elif readings.take_payload(bytes(reading.document)) == "not_stored":
                return None
    return is_readable


async def _readings_of(job: FileJob) -> AsyncGenerator[FileReading]:
    """What the child finds; should it die, that is the last reading."""
    process = await asyncio.create_subprocess_exec(
        *READER_COMMAND,
        str(os.getpid()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | READER_ENVIRONMENT,
        pass_fds=() if job.descriptor is None else (job.descriptor,),
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


FOLDER_SOURCE = SourcePlugin(FolderSettings, watch_folder)
