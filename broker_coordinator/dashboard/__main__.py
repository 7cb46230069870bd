"""`python -m broker_coordinator.dashboard CONFIG --socket N`: the pages of the coordinator of this coordinator.toml.

`broker-coordinator run` starts it, and again when it ends (`broker_coordinator/commands/dashboard_child.py`).
"""

import argparse
import asyncio
import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from broker_coordinator.configuration import load_configuration
from broker_coordinator.dashboard.program import doors_of, serve
from fleet_host.log_lines import configure_logging, log_line
from fleet_protocol.errors import ConfigurationError

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM. Returns 0, or 2 for an error that the operator can correct."""
    parser = argparse.ArgumentParser(prog="broker_coordinator.dashboard", description="Pages of a coordinator.")
    parser.add_argument("configuration", type=Path, help="the coordinator's coordinator.toml")
    parser.add_argument("--socket", type=int, required=True, help="the file descriptor of a socket that listens")
    parser.add_argument("--signs", action="store_true", help="give signs of life on standard output")
    options = parser.parse_args(arguments)
    configure_logging()
    try:
        configuration = load_configuration(options.configuration)
        opened = socket.socket(fileno=options.socket)
        doors = doors_of(configuration.dashboard, opened.getsockname()[1])
    except ConfigurationError as error:
        logger.error(log_line("dashboard_not_started", error=error))
        return 2
    asyncio.run(serve(configuration, doors, opened, signs=options.signs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
