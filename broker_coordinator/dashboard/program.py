"""Serves the dashboard until it is told to stop: as a child of `broker-coordinator run`, or by itself to look alone."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from broker_coordinator.commands.dashboard_child import address_of, dashboard_port
from broker_coordinator.configuration import CoordinatorConfiguration, DashboardSettings
from broker_coordinator.dashboard.access import Doors
from broker_coordinator.dashboard.database_at_hand import DatabaseAtHand
from broker_coordinator.dashboard.feed import Feed
from broker_coordinator.dashboard.routes import Dashboard
from broker_coordinator.dashboard.server import QuietServer, server_of
from broker_coordinator.dashboard.watch import Watch

READERS: Final = 4
"""Questions to the database at once."""
SIGN_SECONDS: Final = 1.0


def doors_of(settings: DashboardSettings, port: int, *, looks_only: bool = False) -> Doors:
    """Who is let in on this port.

    Raises:
        ConfigurationError: the token's file can't be used.
    """
    return Doors(settings.token(), settings.user_header, settings.proxies, settings.hosts, port, looks_only)


async def look(configuration: CoordinatorConfiguration, port: int, say: Callable[[str], None]) -> None:
    """Serve pages that change nothing, of a coordinator that runs or not; `say` is told their address. Port 0 takes any
    that is free.

    Raises:
        ConfigurationError: the port can't be opened, or the token's file not be used.
        JournalUnavailableError: the database can't be read.
    """
    database = DatabaseAtHand(configuration.journal())
    database.read(lambda _: None)
    database.close()
    with dashboard_port(configuration.dashboard, port) as opened:
        doors = doors_of(configuration.dashboard, opened.getsockname()[1], looks_only=True)
        say(address_of(opened))
        await serve(configuration, doors, opened, signs=False)


async def serve(configuration: CoordinatorConfiguration, doors: Doors, opened: socket.socket, *, signs: bool) -> None:
    """Answer on a socket that listens, until SIGTERM or Ctrl-C. `signs`: of life, on standard output."""
    loop = asyncio.get_running_loop()
    feed = Feed()
    database = DatabaseAtHand(configuration.journal())
    watch = Watch(database, lambda event: _tell(loop, feed, event))
    readers, writer = ThreadPoolExecutor(READERS, "reader"), ThreadPoolExecutor(1, "writer")
    dashboard = Dashboard(configuration, doors, database, feed, watch, readers, writer)
    server = server_of(dashboard.app())
    for ending in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(ending, _stop, server, feed)
    giving = asyncio.create_task(_give_signs()) if signs else None
    watch.start()
    try:
        await server.serve(sockets=[opened])
    finally:
        if giving:
            giving.cancel()
        watch.stop()
        for each in (readers, writer):
            each.shutdown(wait=False, cancel_futures=True)
        database.close()


def _tell(loop: asyncio.AbstractEventLoop, feed: Feed, event: bytes) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(feed.tell, event)


def _stop(server: QuietServer, feed: Feed) -> None:
    feed.close()
    server.should_exit = True


async def _give_signs() -> None:
    os.set_blocking(sys.stdout.fileno(), False)
    while True:
        with suppress(BlockingIOError):  # nobody has read earlier ones yet
            os.write(sys.stdout.fileno(), b".")
        await asyncio.sleep(SIGN_SECONDS)
