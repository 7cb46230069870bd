"""Runs the dashboard as a child process; the coordinator never waits for it, and what becomes of it harms nobody."""

import errno
import logging
import socket
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from broker_coordinator.commands.kept_child import SILENCE_SECONDS, KeptChild
from broker_coordinator.configuration import DashboardSettings
from fleet_host.addresses import open_port
from fleet_host.log_lines import log_line
from fleet_protocol.errors import ConfigurationError

MODULE: Final = "broker_coordinator.dashboard"
"""By its name: the coordinator imports nothing of it."""
NEEDED: Final = ("starlette", "uvicorn")
PORT_SECONDS: Final = 3.0
"""The child of a coordinator that was killed a moment ago ends with it, but not in the same instant."""

logger = logging.getLogger(__name__)


class DashboardChild(KeptChild):
    """The dashboard, on a port that this process holds: it stays open while the child is started again."""

    def __init__(self, configuration: Path, opened: socket.socket, silence_seconds: float = SILENCE_SECONDS) -> None:
        self._opened = opened
        self._address = address_of(opened)
        module = [MODULE, str(configuration), "--socket", str(opened.fileno()), "--signs"]
        super().__init__("dashboard", module, inherited=[opened.fileno()], silence_seconds=silence_seconds)

    def stop(self) -> None:
        """End the child and the thread, and close the port."""
        super().stop()
        self._opened.close()

    def log_started(self, pid: int) -> None:
        """It can be opened."""
        logger.info(log_line("dashboard_started", address=self._address, pid=pid))

    def log_stuck(self, pid: int, silent_seconds: float) -> None:
        """It is started again."""
        logger.error(log_line("dashboard_stuck", pid=pid, silent_s=round(silent_seconds)))

    def log_ended(self, status: int | None) -> None:
        """It is started again."""
        remedy = "none if it comes back; else see the lines above: the fleet goes on without it"
        logger.error(log_line("dashboard_ended", status=status, remedy=remedy))


def address_of(opened: socket.socket) -> str:
    """What to open in a browser."""
    address, port, *_ = opened.getsockname()
    return f"http://{f'[{address}]' if ':' in address else address}:{port}"


def dashboard_port(settings: DashboardSettings, port: int) -> socket.socket:
    """A port at the configured address, open. Whatever would keep the dashboard from running is said now.

    Raises:
        ConfigurationError: the port can't be opened, or the token's file not be used.
        ModuleNotFoundError: a package is missing that the extra `dashboard` brings.
    """
    for package in NEEDED:
        if find_spec(package) is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    settings.token()
    deadline = time.monotonic() + PORT_SECONDS
    while True:
        try:
            return open_port(settings.address, port)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(0.1)
                continue
            raise ConfigurationError(
                f"[dashboard] {settings.address}:{port}: {error.strerror}; choose another address or port"
            ) from error
