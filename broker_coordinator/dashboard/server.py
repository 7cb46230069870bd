"""uvicorn, as it has to be inside a program of ours: without its signal handlers, and with bounded connections."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS: Final = 256
"""At once, those of event streams among them. Far below the number of files that a process may have open."""
HEAD_SECONDS: Final = 10.0
"""From a connection to its first whole request."""
LEAVING_SECONDS: Final = 2
MAX_HEAD_BYTES: Final = 16 * 1024


class BoundedProtocol(H11Protocol):
    """HTTP of one connection. One too many is closed at once, as is one that asks for nothing."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Take the connection, or close it."""
        if len(self.connections) >= MOST_CONNECTIONS:
            transport.abort()
            return
        super().connection_made(transport)
        self.loop.call_later(HEAD_SECONDS, self._close_if_silent)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended; one that was never taken is nothing to uvicorn."""
        if self in self.connections:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come; those of a connection that was never taken are dropped."""
        if self in self.connections:
            super().data_received(data)

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
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
