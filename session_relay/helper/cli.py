"""The command `edgeflock helper`, also installed as `edgeflock-helper`: a device's commands, for a helper."""

import argparse
import asyncio
import contextlib
import faulthandler
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from edge_agent.shell.connection.identity import Identity
from edge_agent.worker.installed import check_installed
from fleet_host.command_line import (
    DISTRIBUTION,
    Verbs,
    add_broker_options,
    add_key_verbs,
    add_verb,
    configuration_option,
    output_that_may_end,
    program_parser,
    whole_number,
)
from fleet_host.key_files import read_key_file
from fleet_host.log_lines import configure_logging
from fleet_host.services import add_service_verbs
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.limits import MAX_WAIT_SECONDS
from session_relay.helper.configuration import COMMAND, CONFIGURATION, load_helper_configuration
from session_relay.helper.program import Helper

EXIT_CONFIGURATION = 2
STANDARD_ERROR = 2
JOIN_SECONDS = 60
"""Longest wait of `join` where it is not told another."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and run; a configuration error is one line and exit code 2."""
    options = parser().parse_args(arguments)
    configure_logging()
    refused: list[Exception] = []
    with output_that_may_end():
        try:
            _command(options.verb)(options)
        except* ConfigurationError as group:
            refused += _leaves(group)
    for error in refused:
        sys.stderr.write(f"{COMMAND}: {error}\n")
    if refused:
        sys.exit(EXIT_CONFIGURATION)


def _leaves(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


async def run_helper(path: Path) -> None:
    """Run the helper of one configuration file until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: alone or in a group; what to change.
    """
    configuration = load_helper_configuration(path)
    check_installed(configuration.worker.engine)
    identity = Identity(
        configuration.fleet,
        configuration.shard,
        configuration.device,
        read_key_file(configuration.key_file, COMMAND),
        configuration.coordinator_key,
        encrypt_updates=configuration.encrypt_updates,
    )
    running = asyncio.ensure_future(Helper(configuration, identity, version(DISTRIBUTION)).run())
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def parser(name: str = COMMAND) -> argparse.ArgumentParser:
    """The whole command line, of the command with this name."""
    program = program_parser(name, "Runs blocks of models for devices that are too weak for them.", CONFIGURATION)
    verbs = program.add_subparsers(dest="verb", required=True, metavar="VERB")
    with_configuration = configuration_option()
    add_verb(verbs, "run", "Run the helper in the foreground until SIGTERM or Ctrl-C.", with_configuration)
    _add_join(verbs, with_configuration)
    _add_setup(verbs, with_configuration)
    status = add_verb(verbs, "status", "Show what the running helper does.", with_configuration)
    status.add_argument("--json", action="store_true", help="one JSON object")
    add_key_verbs(verbs, "this helper's signing key", with_configuration)
    add_service_verbs(verbs)
    return program


def _command(verb: str) -> Callable[[argparse.Namespace], None]:
    if verb == "run":
        return _run
    from session_relay.helper.commands import VERBS  # noqa: PLC0415 - a helper that runs needs none of it

    verbs: Mapping[str, Callable[[argparse.Namespace], None]] = VERBS
    return verbs[verb]


def _run(options: argparse.Namespace) -> None:
    faulthandler.enable(STANDARD_ERROR)  # the watchdog's SIGABRT shows where it hung
    asyncio.run(run_helper(options.config))


def _add_join(verbs: Verbs, *parents: argparse.ArgumentParser) -> None:
    join = add_verb(verbs, "join", "Join a fleet with an invitation, and start the helper.", *parents)
    join.add_argument("invitation", metavar="INVITATION", help="what `broker-coordinator devices invite` prints")
    join.add_argument("--profile", metavar="NAME", help="the kind of machine (found out)")
    join.add_argument(
        "--wait",
        type=whole_number(0, MAX_WAIT_SECONDS),
        default=JOIN_SECONDS,
        metavar="SECONDS",
        help=f"how long to wait for the clock, the network and the coordinator ({JOIN_SECONDS})",
    )
    join.add_argument("--folder", type=Path, metavar="DIR", help="put everything there, and start nothing")


def _add_setup(verbs: Verbs, *parents: argparse.ArgumentParser) -> None:
    setup = add_verb(
        verbs, "setup", "Make this helper's key, and write its configuration from a few answers.", *parents
    )
    add_broker_options(setup)
    setup.add_argument("--device", required=True, metavar="NAME", help="this helper's name")
    setup.add_argument(
        "--coordinator-key", required=True, metavar="KEY", help="what `broker-coordinator key` prints on the server"
    )
    setup.add_argument("--profile", default="generic", metavar="NAME", help="the kind of machine (generic)")
    setup.add_argument(
        "--task", action="append", required=True, metavar="NAME", help="a task to help with; several times for more"
    )


if __name__ == "__main__":
    main()
