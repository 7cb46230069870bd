"""The command line: `broker-coordinator run | keygen | devices | tasks | database`."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from broker_coordinator.commands import database, devices, run, tasks
from broker_coordinator.configuration import PROGRAM
from broker_coordinator.storage.database import JournalUnavailableError
from fleet_host.key_files import make_key_file
from fleet_host.log_lines import configure_logging
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.keys import write_verify_key


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, 1 if a check failed, or 2 for an error that the operator can correct."""
    options = _parser().parse_args(arguments)
    configure_logging()
    try:
        return _COMMANDS[options.command](options) or 0
    except (ConfigurationError, ProtocolError, JournalUnavailableError) as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        return 2


def _keygen(options: argparse.Namespace) -> None:
    sys.stdout.write(write_verify_key(make_key_file(options.file)) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Coordinates a fleet over MQTT.")
    commands = parser.add_subparsers(dest="command", required=True)
    with_config = argparse.ArgumentParser(add_help=False)
    with_config.add_argument("--config", type=Path, required=True, metavar="FILE", help="coordinator.toml")
    commands.add_parser("run", parents=[with_config], help="serve until SIGTERM or Ctrl-C")
    keygen = commands.add_parser("keygen", help="make the coordinator's key; prints the public key that devices pin")
    keygen.add_argument("file", type=Path, metavar="FILE")
    devices.add_parser(commands, [with_config])
    tasks.add_parser(commands, [with_config])
    database.add_parser(commands)
    return parser


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int | None]] = {
    "run": run.run,
    "keygen": _keygen,
    "devices": devices.run,
    "tasks": tasks.run,
    "database": database.run,
}

if __name__ == "__main__":
    sys.exit(main())
