"""What every open page is told: the newest state alone, so that a slow reader holds up nobody and keeps nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

MOST_STREAMS: Final = 64
"""Open at once; each is a connection and a task."""
QUIET_SECONDS: Final = 15.0
"""After so long without news a comment is sent, so that a connection that is gone is noticed."""

COMMENT: Final = b": nothing new\n\n"


class TooManyStreamsError(Exception):
    """As many streams are open as may be."""


class Feed:
    """The newest event, and those who wait for the next. Belongs to one event loop."""

    def __init__(self, most: int = MOST_STREAMS) -> None:
        self._most = most
        self._open = 0
        self._newest: bytes | None = None
        self._number = 0
        self._changed = asyncio.Event()
        self._is_closed = False

    def close(self) -> None:
        """End all streams."""
        self._is_closed = True
        self._changed.set()

    def tell(self, event: bytes) -> None:
        """This is the newest from now on; one that nobody has taken yet is forgotten."""
        if event != self._newest:
            self._newest = event
            self._number += 1
            self._changed.set()
            self._changed = asyncio.Event()

    @contextmanager
    def stream(self) -> Iterator[AsyncIterator[bytes]]:
        """What to send to one reader, as server-sent events.

        Raises:
            TooManyStreamsError: as many are open as may be.
        """
        if self._open >= self._most:
            raise TooManyStreamsError
        self._open += 1
        try:
            yield self._events()
        finally:
            self._open -= 1

    async def _events(self) -> AsyncIterator[bytes]:
        seen = -1
        while not self._is_closed:
            if seen != self._number and self._newest is not None:
                seen = self._number
                yield b"data: " + self._newest + b"\n\n"
            else:
                try:
                    await asyncio.wait_for(self._changed.wait(), QUIET_SECONDS)
                except TimeoutError:
                    yield COMMENT
