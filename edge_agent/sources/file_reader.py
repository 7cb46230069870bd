"""The child that reads one file for the folder source, and exits: numpy and Pillow are loaded here, never in the agent.

What it reads may be anything, so its memory and processor time are limited.
"""

import csv
import io
import os
import resource
import sys
import wave
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.sources.file_job import FileJob, FileReading
from fleet_host.child_process import die_with
from fleet_protocol.document_errors import NOT_JSON
from fleet_protocol.errors import why_unreadable
from fleet_protocol.limits import MIB

MEMORY_BYTES = 512 * MIB
CPU_SECONDS = 300

LABEL_COLUMN = "label"
"""As in files of samples (docs/sample-files.md)."""


class UnreadableFileError(Exception):
    """The file is not what its name says, or not what the task takes; what to do."""


def read_file(job: FileJob) -> Iterator[FileReading]:
    """Every reading of a file, in its order; the last one says so where the file is unreadable from there on."""
    path = Path(job.path)
    reader = READERS.get(path.suffix.lower(), _refuse_name)
    try:
        with path.open("rb") if job.descriptor is None else os.fdopen(job.descriptor, "rb") as file:
            yield from reader(file, job)
    except UnreadableFileError as error:
        yield FileReading(refused=f"{path.name}: {error}", ends=True)
    except Exception as error:  # numpy, zipfile, wave and Pillow have no base in common
        yield FileReading(refused=f"{path.name}: {_words(error)}", ends=True)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:  # the system's; a format that is wrong has no number
        return why_unreadable(error, "correct the name")
    return f"{error or type(error).__name__}; write it again"


def _refuse_name(_file: BinaryIO, _job: FileJob) -> Iterator[FileReading]:
    raise UnreadableFileError(f"the name must end in {', '.join(READERS)}")


def _read_csv(file: BinaryIO, job: FileJob) -> Iterator[FileReading]:
    table = csv.reader(io.TextIOWrapper(file, newline="", encoding="utf-8-sig"))
    header = [name.strip() for name in next(table, [])]
    for cells in filter(None, table):
        if len(cells) != len(header):
            words = f"{len(cells)} cells under {len(header)} names of the header"
            yield FileReading(refused=f"{_name(job)}, line {table.line_num}: {words}")
            continue
        row = dict(zip(header, map(_cell, cells), strict=True))
        yield _document(row if job.mapped else _positional(row))


def _cell(text: str) -> float | str | None:
    """An empty one is a missing value; a text stays one, for whoever knows its number."""
    try:
        return float(text) if text.strip() else None
    except ValueError:
        return text.strip()


def _positional(row: Mapping[str, float | str | None]) -> dict[str, Any]:
    label = [value for name, value in row.items() if name.startswith(LABEL_COLUMN)]
    inputs = [value for name, value in row.items() if not name.startswith(LABEL_COLUMN)]
    return {"inputs": inputs, "label": label[0] if len(label) == 1 else label or None}


def _read_json_lines(file: BinaryIO, job: FileJob) -> Iterator[FileReading]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            msgspec.json.decode(line)
        except NOT_JSON as error:
            yield FileReading(refused=f"{_name(job)}, line {number}: not JSON: {error}")
        else:
            yield FileReading(document=msgspec.Raw(line.strip()))


def _read_npy(file: BinaryIO, job: FileJob) -> Iterator[FileReading]:
    array = np.load(io.BytesIO(file.read()), allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise UnreadableFileError("no array of numpy.save; write it again, or name it .npz")
    rows = array[np.newaxis] if list(array.shape) == job.shape else array
    yield from _samples(rows, job, [job.label] * len(rows))


def _read_npz(file: BinaryIO, job: FileJob) -> Iterator[FileReading]:
    with np.load(io.BytesIO(file.read()), allow_pickle=False) as members:
        if "inputs" not in members:
            raise UnreadableFileError(f"the array 'inputs' is missing; there is {', '.join(members) or 'none'}")
        inputs = members["inputs"]
        labels = members["labels"].tolist() if "labels" in members else [job.label] * len(inputs)
    if len(labels) != len(inputs):
        raise UnreadableFileError(f"{len(inputs)} inputs and {len(labels)} labels; write one label for each sample")
    yield from _samples(inputs, job, labels)


def _read_wave(file: BinaryIO, job: FileJob) -> Iterator[FileReading]:
    """Channels are averaged; the sound is divided into as many whole samples as it has."""
    with wave.open(file) as sound:
        rate, width, channels = sound.getframerate(), sound.getsampwidth(), sound.getnchannels()
        if job.sample_rate_hz not in {None, rate}:
            raise UnreadableFileError(f"recorded at {rate} Hz; the source takes {job.sample_rate_hz} Hz: convert it")
        frames = _amplitudes(sound.readframes(sound.getnframes()), width).reshape(-1, channels).mean(axis=1)
    size = int(np.prod(job.shape))
    if len(frames) < size:
        raise UnreadableFileError(f"{len(frames)} values are shorter than a sample of {size}; record longer")
    rows = frames[: len(frames) // size * size].reshape(-1, *job.shape)
    yield from _samples(rows, job, [job.label] * len(rows))


def _amplitudes(data: bytes, width: int) -> NDArray[np.float64]:
    """PCM of 1 (unsigned), 2, 3 or 4 bytes (signed, little-endian) to float64 from -1 to 1."""
    if width == 1:
        return np.frombuffer(data, np.uint8).astype(np.float64) / 128 - 1
    padded = np.zeros((len(data) // width, 4), np.uint8)
    padded[:, 4 - width :] = np.frombuffer(data, np.uint8).reshape(-1, width)
    return padded.view("<i4")[:, 0].astype(np.float64) / 2**31


def _read_picture(file: BinaryIO, job: FileJob) -> Iterator[FileReading]:
    """Resized to the task's height and width, grey or in colour as it asks; from the input's minimum (black) to its
    maximum (white).
    """
    try:
        from PIL import Image  # noqa: PLC0415 - the package may be absent
    except ImportError:
        raise UnreadableFileError("pictures need Pillow: pip install 'edgeflock[pictures]'") from None
    modes = {1: "L", 3: "RGB"}
    if len(job.shape) != 3 or job.shape[0] not in modes:
        raise UnreadableFileError(f"the task takes {job.shape}, no picture of [1 or 3, height, width]")
    channels, height, width = job.shape
    with Image.open(file, formats=("PNG", "JPEG")) as picture:
        resized = picture.convert(modes[channels]).resize((width, height))
    values = np.asarray(resized, np.float64).reshape(height, width, channels).transpose(2, 0, 1) / 255
    yield from _samples((job.minimum + values * (job.maximum - job.minimum))[np.newaxis], job, [job.label])


def _samples(rows: NDArray[Any], job: FileJob, labels: list[Any]) -> Iterator[FileReading]:
    if rows.dtype.kind not in "biuf":
        raise UnreadableFileError(f"it holds {rows.dtype}, no numbers; write it as float32")
    if list(rows.shape[1:]) != job.shape:
        wanted = ", ".join(map(str, ("N", *job.shape)))
        raise UnreadableFileError(f"its shape is {list(rows.shape)}, expected [{wanted}] as the task says")
    for row, label in zip(rows.reshape(len(rows), -1), labels, strict=True):
        yield _document({"inputs": row.tolist(), "label": label})


def _name(job: FileJob) -> str:
    return Path(job.path).name


def _document(values: Mapping[str, Any]) -> FileReading:
    return FileReading(document=msgspec.Raw(msgspec.json.encode(values)))


READERS: Final[Mapping[str, Callable[[BinaryIO, FileJob], Iterator[FileReading]]]] = {
    ".csv": _read_csv,
    ".jsonl": _read_json_lines,
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".wav": _read_wave,
    ".png": _read_picture,
    ".jpg": _read_picture,
    ".jpeg": _read_picture,
}


def main() -> None:
    """Read one job, write its readings; whatever else prints goes to standard error.

    The one argument is the agent's process id.
    """
    die_with(int(sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=FileJob)
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as channel:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        for reading in read_file(job):
            channel.write(msgspec.json.encode(reading) + b"\n")


if __name__ == "__main__":
    main()
