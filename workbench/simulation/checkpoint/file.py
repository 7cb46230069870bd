"""A checkpoint's file: what was asked for, and a state; whole or not at all, and checked when it is read.

    first line | SHA-256 of all behind it | frames: length (4 bytes, big-endian), a msgpack value in a zstd frame

The first frame is what was asked for, by the names of the options; the second a heading, the next ones are chunks, and
the last one says how many these are.
"""

import hashlib
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import zstandard

from fleet_host.new_files import remedy_for, replace_file
from fleet_protocol.errors import ConfigurationError
from workbench.simulation.checkpoint.graph import Line
from workbench.simulation.checkpoint.state import Heading, take_over, written
from workbench.simulation.simulation import Simulation

FIRST_LINE: Final = b"edgeflock simulation checkpoint, form 3\n"
"""Another number for another form of what is behind it."""
NO_CHECKPOINT: Final = (
    StopIteration,
    LookupError,
    RecursionError,
    msgspec.DecodeError,
    zstandard.ZstdError,
    AttributeError,
    ArithmeticError,
    MemoryError,
)
"""What a file with the right hash and something else in it brings about."""
_HASH_BYTES: Final = 32
_LENGTH_BYTES: Final = 4
_QUICK: Final = 1

Asked = Mapping[str, str]
"""What was asked for, by the options that say it."""


def write_checkpoint(path: Path, asked: Asked, simulation: Simulation) -> None:
    """Put the state of a simulation into a file, in place of an earlier one.

    Raises:
        NotWritableError: something in it has no place in a checkpoint.
        ConfigurationError: the file can't be written; an earlier one stays.
    """
    heading, chunks = written(simulation)
    frames = b"".join(_frames(asked, heading, chunks))
    try:
        replace_file(path, FIRST_LINE + hashlib.sha256(frames).digest() + frames)
    except OSError as error:
        remedy = remedy_for(error, "choose another --checkpoint")
        raise ConfigurationError(f"checkpoint {path}: can't be written: {error.strerror}; {remedy}") from error


def resume(path: Path, asked: Asked, simulation: Simulation) -> bool:
    """Put a prepared simulation into the state in a file; False where there is no file.

    Raises:
        ConfigurationError: the file can't be read, is damaged, or is of something else than was asked for now.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigurationError(f"checkpoint {path}: this is no file, but something else; name a file")
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigurationError(f"checkpoint {path}: can't be read: {error.strerror}") from error
    frames = _checked(path, content)
    try:
        _require_same(msgspec.convert(next(frames), dict[str, str]), asked)
        take_over(simulation, msgspec.convert(next(frames), Heading), _up_to_end(frames))
    except ConfigurationError as error:
        raise ConfigurationError(f"checkpoint {path}: {error}") from error
    except NO_CHECKPOINT as error:
        raise _damaged(path) from error
    return True


def _frames(asked: Asked, heading: Heading, chunks: Iterable[list[Line]]) -> Iterator[bytes]:
    compressor = zstandard.ZstdCompressor(level=_QUICK)

    def frame(part: object) -> bytes:
        compressed = compressor.compress(msgspec.msgpack.encode(part))
        return len(compressed).to_bytes(_LENGTH_BYTES) + compressed

    yield frame(asked)
    yield frame(heading)
    number = 0
    for number, chunk in enumerate(chunks, 1):  # noqa: B007 - their number is written behind them
        yield frame(chunk)
    yield frame(number)


def _checked(path: Path, content: bytes) -> Iterator[Any]:
    if not content.startswith(FIRST_LINE):
        begun = FIRST_LINE.split(b",")[0]
        if content.startswith(begun):
            remedy = "is of another form: go on with the release that wrote it, or choose another --checkpoint"
        else:
            remedy = "is no checkpoint: choose another --checkpoint"
        raise ConfigurationError(f"checkpoint {path}: this {remedy}")
    begin = len(FIRST_LINE) + _HASH_BYTES
    if hashlib.sha256(content[begin:]).digest() != content[len(FIRST_LINE) : begin]:
        raise _damaged(path)
    return _read_frames(memoryview(content)[begin:])


def _read_frames(left: memoryview) -> Iterator[Any]:
    decompressor = zstandard.ZstdDecompressor()
    while left:
        end = _LENGTH_BYTES + int.from_bytes(left[:_LENGTH_BYTES])
        yield msgspec.msgpack.decode(decompressor.decompress(left[_LENGTH_BYTES:end]))
        left = left[end:]


def _up_to_end(frames: Iterator[Any]) -> Iterator[Any]:
    """The chunks.

    Raises:
        msgspec.DecodeError: there are not as many as the last frame says, or it is not the last.
    """
    number = 0
    for frame in frames:
        if isinstance(frame, int):
            if frame != number or next(frames, None) is not None:
                break
            return
        number += 1
        yield frame
    raise msgspec.DecodeError(f"{number} chunks are not as many as were written")


def _damaged(path: Path) -> ConfigurationError:
    return ConfigurationError(f"checkpoint {path} is damaged; delete it, and the simulation begins anew")


def _require_same(then: Asked, now: Asked) -> None:
    for name in {**then, **now}:
        if then.get(name) != now.get(name):
            raise ConfigurationError(
                f"it is of a simulation with {name} {then.get(name, '-')}, and now it is {now.get(name, '-')}; give the"
                " same options as then, or another --checkpoint"
            )
