"""The command `edge-agent`."""

import argparse
import asyncio
import contextlib
import signal
import sys
from importlib.metadata import version
from pathlib import Path

from edge_agent.configuration import load_configuration
from edge_agent.shell.agent import Agent
from edge_agent.shell.identity import Identity
from edge_agent.worker.installed import check_installed
from fleet_host.key_files import make_key_file, read_key_file
from fleet_host.log_lines import configure_logging
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import write_verify_key

PROGRAM = "edge-agent"
EXIT_CONFIGURATION = 2


def main() -> None:
    """Parse the arguments and run; a configuration error is one line and exit code 2."""
    arguments = _parser().parse_args()
    configure_logging()
    refused: list[Exception] = []
    try:
        if arguments.command == "keygen":
            print(write_verify_key(make_key_file(arguments.file)))  # noqa: T201 - the command's output
        else:
            asyncio.run(run_agent(arguments.config))
    except* ConfigurationError as group:
        refused += group.exceptions
    for error in refused:  # not in the handler: what is raised there comes out in a group
        print(f"{PROGRAM}: {error}", file=sys.stderr)  # noqa: T201 - for the person at the terminal
    if refused:
        sys.exit(EXIT_CONFIGURATION)


async def run_agent(path: Path) -> None:
    """Run the agent of one configuration file until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: alone or in a group; what to change.
    """
    configuration = load_configuration(path)
    check_installed(configuration.worker.engine)
    identity = Identity(
        configuration.fleet,
        configuration.shard,
        configuration.device,
        read_key_file(configuration.key_file, PROGRAM),
        configuration.coordinator_key,
        encrypt_updates=configuration.encrypt_updates,
    )
    running = asyncio.ensure_future(Agent(configuration, identity, version("edgeflock")).run())
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Learns on this device, with its fleet.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the agent in the foreground")
    run.add_argument("--config", type=Path, required=True, metavar="FILE", help="agent.toml")
    keygen = commands.add_parser("keygen", help="make this device's key and print its public half")
    keygen.add_argument("file", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    main()
