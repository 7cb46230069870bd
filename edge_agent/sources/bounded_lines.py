"""Lines from many connections, of which only so many bytes are held at a time."""

import asyncio
from collections.abc import AsyncGenerator

from fleet_protocol.limits import KIB, MIB

MAX_LINE_BYTES = 4 * MIB

MAX_HELD_BYTES = 8 * MIB
"""Of unfinished lines, over all connections."""

LINE_SECONDS = 60.0
"""From the first byte of a line to its end. Between two lines a connection may be silent for as long as it likes."""

READ_BYTES = 64 * KIB


class LineRefusedError(Exception):
    """What follows on this connection has no beginning: it can only be closed. Says why."""


class HeldBytes:
    """What the unfinished lines of all connections take together."""

    def __init__(self, maximum: int = MAX_HELD_BYTES) -> None:
        self._maximum = maximum
        self._held = 0

    def take(self, count: int) -> None:
        """Hold `count` bytes more.

        Raises:
            LineRefusedError: there is no room.
        """
        if self._held + count > self._maximum:
            raise LineRefusedError(f"unfinished lines of all programs exceed {self._maximum} bytes; send it again")
        self._held += count

    def give_back(self, count: int) -> None:
        """Hold `count` bytes less."""
        self._held -= count


async def lines_of(
    reader: asyncio.StreamReader, held: HeldBytes, line_seconds: float = LINE_SECONDS
) -> AsyncGenerator[bytes, None]:
    """Each line, without its end, up to the end of the stream; what has no end is a line as well.

    Raises:
        LineRefusedError: a line is too long, takes too long, or finds no room in `held`.
        ConnectionError: the other side is gone.
    """
    begun = bytearray()
    loop = asyncio.get_running_loop()
    deadline = None
    try:
        while data := await _read(reader, deadline, line_seconds):
            *ended, rest = data.split(b"\n")
            for end in ended:
                _check_length(len(begun) + len(end))
                line = bytes(begun + end)
                held.give_back(len(begun))
                begun.clear()
                deadline = None
                yield line
            if rest:
                deadline = deadline or loop.time() + line_seconds
                _check_length(len(begun) + len(rest))
                held.take(len(rest))
                begun += rest
        if begun:
            yield bytes(begun)
    finally:
        held.give_back(len(begun))


def _check_length(length: int) -> None:
    if length > MAX_LINE_BYTES:
        raise LineRefusedError(f"line exceeds {MAX_LINE_BYTES} bytes")


async def _read(reader: asyncio.StreamReader, deadline: float | None, line_seconds: float) -> bytes:
    try:
        async with asyncio.timeout_at(deadline):
            return await reader.read(READ_BYTES)
    except TimeoutError as error:
        raise LineRefusedError(f"the line did not end within {line_seconds:g} s") from error
