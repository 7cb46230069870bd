"""The command `edge-agent`."""

import argparse
import asyncio
import signal
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from edge_agent.configuration import CONFIGURATION, PROGRAM, load_configuration
from edge_agent.member_cli import add_join, add_run, add_setup, identity_of, run_in_foreground, until_signalled
from edge_agent.verbs.samples_options import add_samples_verb
from fleet_host.command_line import (
    DISTRIBUTION,
    Verbs,
    add_key_verbs,
    add_verb,
    configuration_option,
    program_parser,
    run_verb,
)
from fleet_host.log_lines import configure_logging
from fleet_host.services import add_service_verbs


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and run; a configuration error is one line and exit code 2."""
    options = parser().parse_args(arguments)
    configure_logging()
    run_verb(PROGRAM, lambda: _command(options.verb)(options))


async def run_agent(path: Path) -> None:
    """Run the agent of one configuration file until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: alone or in a group; what to change.
    """
    from edge_agent.shell.agent import Agent  # noqa: PLC0415 - no other verb needs it

    configuration = load_configuration(path)
    agent = Agent(configuration, identity_of(configuration, PROGRAM), version(DISTRIBUTION))
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, agent.train_now)
    await until_signalled(agent.run())


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    program = program_parser(PROGRAM, "Learns on this device, together with its fleet.", CONFIGURATION)
    verbs = program.add_subparsers(dest="verb", required=True, metavar="VERB")
    with_configuration = configuration_option()
    add_run(verbs, "agent", with_configuration)
    add_join(verbs, "agent", "device", with_configuration)
    add_setup(verbs, "device", with_configuration).add_argument(
        "--task", action="append", metavar="NAME", help="a task to take part in; several times for more (digits)"
    )
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
    run_in_foreground(run_agent(options.config))


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
