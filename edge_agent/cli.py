"""The command `edge-agent`."""

import argparse
import asyncio
import contextlib
import faulthandler
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from edge_agent.configuration import CONFIGURATION, PROGRAM, load_configuration
from edge_agent.shell.agent import Agent
from edge_agent.shell.connection.identity import Identity
from edge_agent.verbs.samples_verb import add_samples_verb
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
    for error in refused:  # not in the handler: what is raised there comes out in a group
        sys.stderr.write(f"{PROGRAM}: {error}\n")
    if refused:
        sys.exit(EXIT_CONFIGURATION)


def _leaves(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


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
    agent = Agent(configuration, identity, version(DISTRIBUTION))
    running = asyncio.ensure_future(agent.run())
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, agent.train_now)
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    program = program_parser(PROGRAM, "Learns on this device, together with its fleet.", CONFIGURATION)
    verbs = program.add_subparsers(dest="verb", required=True, metavar="VERB")
    with_configuration = configuration_option()
    add_verb(verbs, "run", "Run the agent in the foreground until SIGTERM or Ctrl-C.", with_configuration)
    _add_join(verbs, with_configuration)
    _add_setup(verbs, with_configuration)
    _add_predict(verbs, with_configuration)
    _add_status(verbs, with_configuration)
    add_samples_verb(verbs, with_configuration)
    train = add_verb(verbs, "train", "Ask the running agent for a round of every task.", with_configuration)
    train.add_argument(
        "--now", action="store_true", required=True, help="whatever its triggers say; guards still apply"
    )
    add_verb(verbs, "doctor", "Look at what this device needs, and say what to do.", with_configuration)
    _add_measure(verbs)
    reset = add_verb(verbs, "reset", "Forget what this device has learned; it starts anew.", with_configuration)
    reset.add_argument("--yes", action="store_true", required=True, help="what waits to be sent is lost; its key stays")
    reset.add_argument("--samples", action="store_true", help="delete the samples too")
    add_key_verbs(verbs, "this device's signing key", with_configuration)
    add_service_verbs(verbs)
    return program


def _command(verb: str) -> Callable[[argparse.Namespace], None]:
    if verb == "run":
        return _run
    from edge_agent.verbs.commands import VERBS  # noqa: PLC0415 - an agent that runs needs none of it

    return VERBS[verb]


def _run(options: argparse.Namespace) -> None:
    faulthandler.enable(STANDARD_ERROR)  # the watchdog's SIGABRT shows where it hung
    asyncio.run(run_agent(options.config))


def _add_join(verbs: Verbs, *parents: argparse.ArgumentParser) -> None:
    join = add_verb(verbs, "join", "Join a fleet with an invitation, and start the agent.", *parents)
    join.add_argument("invitation", metavar="INVITATION", help="what `broker-coordinator devices invite` prints")
    join.add_argument("--profile", metavar="NAME", help="the kind of device (found out)")
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
        verbs, "setup", "Make this device's key, and write its configuration from a few answers.", *parents
    )
    add_broker_options(setup)
    setup.add_argument("--device", required=True, metavar="NAME", help="this device's name")
    setup.add_argument(
        "--coordinator-key", required=True, metavar="KEY", help="what `broker-coordinator key` prints on the server"
    )
    setup.add_argument(
        "--authority",
        metavar="FINGERPRINT",
        help="where the coordinator makes the broker's accounts: what `broker-coordinator key` prints as that",
    )
    setup.add_argument("--profile", default="generic", metavar="NAME", help="the kind of device (generic)")
    setup.add_argument(
        "--task", action="append", metavar="NAME", help="a task to take part in; several times for more (digits)"
    )


def _add_predict(verbs: Verbs, *parents: argparse.ArgumentParser) -> None:
    predict = add_verb(verbs, "predict", "Ask the running agent what the model says of readings.", *parents)
    what = predict.add_mutually_exclusive_group(required=True)
    what.add_argument("reading", nargs="?", metavar="READING", help="one reading, as JSON")
    what.add_argument("--file", type=Path, metavar="FILE", help="a .csv or .jsonl; - reads lines of JSON")
    predict.add_argument("--follow", action="store_true", help="go on with lines that are added to FILE, until Ctrl-C")
    predict.add_argument("--task", metavar="NAME", help="the task (the first in agent.toml)")
    predict.add_argument("--json", action="store_true", help="one JSON object a line")


def _add_status(verbs: Verbs, *parents: argparse.ArgumentParser) -> None:
    status = add_verb(verbs, "status", "Show what the running agent does, and why it does not train.", *parents)
    status.add_argument("--json", action="store_true", help="one JSON object, as the sample socket answers")
    status.add_argument("--watch", action="store_true", help="again whenever something has changed, until Ctrl-C")


def _add_measure(verbs: Verbs) -> None:
    measuring = add_verb(verbs, "measure", "Write a profile of this machine, within a minute.")
    measuring.add_argument(
        "--out", type=Path, metavar="FILE", help="the file to write, which must not exist (standard output)"
    )


if __name__ == "__main__":
    main()
