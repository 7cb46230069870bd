"""The command `edgeflock-helper`, also called as `edgeflock helper`: a device's commands, for a helper."""

import argparse
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from edge_agent.member_cli import add_join, add_run, add_setup, identity_of, run_in_foreground, until_signalled
from fleet_host.command_line import (
    DISTRIBUTION,
    add_key_verbs,
    add_verb,
    configuration_option,
    program_parser,
    run_verb,
)
from fleet_host.log_lines import configure_logging
from fleet_host.services import add_service_verbs
from session_relay.helper.configuration import CONFIGURATION, PROGRAM, load_helper_configuration


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and run; a configuration error is one line and exit code 2."""
    options = parser().parse_args(arguments)
    configure_logging()
    run_verb(PROGRAM, lambda: _command(options.verb)(options))


async def run_helper(path: Path) -> None:
    """Run the helper of one configuration file until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: alone or in a group; what to change.
    """
    configuration = load_helper_configuration(path)
    identity, software = identity_of(configuration, PROGRAM), version(DISTRIBUTION)
    if configuration.masks is None:
        from session_relay.helper.program import Helper  # noqa: PLC0415 - `run` alone needs it

        await until_signalled(Helper(configuration, identity, software).run())
    else:
        from session_relay.helper.mask_program import MaskHelperProgram  # noqa: PLC0415 - others do without its numpy

        await until_signalled(MaskHelperProgram(configuration, configuration.masks, identity, software).run())


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    program = program_parser(PROGRAM, "Runs blocks of models for devices that are too weak for them.", CONFIGURATION)
    verbs = program.add_subparsers(dest="verb", required=True, metavar="VERB")
    with_configuration = configuration_option()
    add_run(verbs, "helper", with_configuration)
    add_join(verbs, "helper", "machine", with_configuration)
    add_setup(verbs, "machine", with_configuration).add_argument(
        "--task", action="append", required=True, metavar="NAME", help="a task to help with; several times for more"
    )
    status = add_verb(verbs, "status", "Show what the running helper does.", with_configuration)
    status.add_argument("--json", action="store_true", help="one JSON object")
    add_verb(verbs, "mask-key", "Print the key of this mask helper.", with_configuration)
    key = add_verb(verbs, "encryption-key", "Write the file of this key holder's encryption key.", with_configuration)
    key.add_argument("file", type=Path, metavar="FILE", help="key_holder.key beside the task.toml that names it")
    add_key_verbs(verbs, "this helper's signing key", with_configuration)
    add_service_verbs(verbs)
    return program


def _command(verb: str) -> Callable[[argparse.Namespace], None]:
    if verb == "run":
        return _run
    from session_relay.helper.commands import VERBS  # noqa: PLC0415 - a helper that runs needs none of it

    return VERBS[verb]


def _run(options: argparse.Namespace) -> None:
    run_in_foreground(run_helper(options.config))


if __name__ == "__main__":
    main()
