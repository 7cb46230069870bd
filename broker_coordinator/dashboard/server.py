"""uvicorn, as it has to be inside a program of ours: without its signal handlers, and with bounded connections."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

MOST_CONNECTIONS: Final = 256
"""At once, those of event streams among them. Far below the number of files that a process may have open."""
HEAD_SECONDS: Final = 10.0
"""From a connection, or the end of an answer, to the next whole request."""
TAKING_SECONDS: Final = 20.0
"""A reader that takes nothing of an answer for so long has left, whatever its connection says."""
LEAVING_SECONDS: Final = 2
MAX_HEAD_BYTES: Final = 16 * 1024


class BoundedProtocol(H11Protocol):
    """HTTP of one connection. One too many is closed at once, and one that asks for nothing, or takes nothing of what
    it asked for, after a while: without that, whoever reaches the port could hold all of them for ever.
    """

    _reader_due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take the connection, or close it."""
        if len(self.connections) >= MOST_CONNECTIONS:
            transport.abort()
            return
        super().connection_made(transport)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended; one that was never taken is nothing to uvicorn."""
        if self in self.connections:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come; those of a connection that was never taken are dropped."""
        if self in self.connections:
            super().data_received(data)

    def on_response_complete(self) -> None:
        """An answer is handed over. uvicorn's own limit to the next request ends with that request's first byte."""
        self._await_request()
        super().on_response_complete()

    def pause_writing(self) -> None:
        """The answer waits for its reader."""
        super().pause_writing()
        self._await_reader()

    def resume_writing(self) -> None:
        """The reader has taken most of it."""
        super().resume_writing()
        if self._reader_due is not None:
            self._reader_due.cancel()

    def _await_request(self) -> None:
        self.loop.call_later(HEAD_SECONDS, self._close_if_silent, self.cycle)

    def _close_if_silent(self, last: RequestResponseCycle | None) -> None:
        if self in self.connections and self.cycle is last:
            self.transport.close()  # once the end of the last answer is taken too
            self._await_reader()

    def _await_reader(self) -> None:
        waiting = self.transport.get_write_buffer_size()
        self._reader_due = self.loop.call_later(TAKING_SECONDS, self._abort_if_stuck, waiting)

    def _abort_if_stuck(self, waited: int) -> None:
        """`waited`: so many bytes did when this was asked for."""
        if self not in self.connections:
            return
        if self.transport.get_write_buffer_size() < waited:
            self._await_reader()
        else:
            self.transport.abort()


class QuietServer(uvicorn.Server):
    """A server that leaves signals alone.

    uvicorn's own `serve` replaces the program's handlers of SIGINT and SIGTERM by its own, puts them back when it has
    ended, and raises the signal again then: the program around it would hear of it late, and twice.
    """

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def server_of(app: ASGIApp) -> QuietServer:
    """A server for `app`; `serve(sockets=[...])` runs it until `should_exit`."""
    return QuietServer(
        uvicorn.Config(
            app,
            http=BoundedProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=logging.WARNING,
            access_log=False,  # addresses hold what people search for
            server_header=False,
            proxy_headers=False,  # who may say who asks is decided in access.py, by the address of the connection
            timeout_graceful_shutdown=LEAVING_SECONDS,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )
    )
