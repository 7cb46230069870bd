"""The command `edge-agent`."""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from importlib.metadata import version
from pathlib import Path

from edge_agent.configuration import load_configuration
from edge_agent.shell.agent import Agent
from edge_agent.shell.identity import Identity, load_signing_key
from edge_agent.worker.installed import check_installed
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.keys import SigningKey, write_signing_key, write_verify_key

EXIT_CONFIGURATION = 2


def main() -> None:
    """Parse the arguments and run; a configuration error is one line and exit code 2."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="level=%(levelname)s %(message)s", stream=sys.stderr)
    try:
        if arguments.command == "keygen":
            generate_key(arguments.file)
        else:
            asyncio.run(run_agent(arguments.config))
    except* ConfigurationError as group:
        for error in group.exceptions:
            print(f"edge-agent: {error}", file=sys.stderr)  # noqa: T201 - for the person at the terminal
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
        load_signing_key(configuration.key_file),
        configuration.coordinator_key,
        encrypt_updates=configuration.encrypt_updates,
    )
    running = asyncio.ensure_future(Agent(configuration, identity, version("edgeflock")).run())
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def generate_key(path: Path) -> None:
    """Write a new key file with mode 0600 and print its public key.

    Raises:
        ConfigurationError: the file exists, or can't be written.
    """
    key = SigningKey.generate()
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(write_signing_key(key))
    except OSError as error:
        raise ConfigurationError(f"key file {path}: {error.strerror}; nothing was written") from error
    print(write_verify_key(key.verify_key))  # noqa: T201 - the command's output


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edge-agent", description="Learns on this device, with its fleet.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run the agent in the foreground")
    run.add_argument("--config", type=Path, required=True, metavar="FILE", help="agent.toml")
    keygen = commands.add_parser("keygen", help="make this device's key and print its public half")
    keygen.add_argument("file", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    main()
