"""The command `broker-coordinator`. Of its verbs, the one that is called is imported, and all for the help alone."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from fleet_host.command_line import (
    configuration_option,
    output_that_may_end,
    program_parser,
    write_error,
)
from fleet_host.extras import missing_extra_named
from fleet_host.lasting_imports import lasting_imports
from fleet_host.log_lines import configure_logging
from fleet_protocol.errors import ConfigurationError, ProtocolError

PROGRAM = "broker-coordinator"
CONFIGURATION = Path("/etc/broker-coordinator/coordinator.toml")
"""Read where `--config` doesn't name another; the same as in systemd/broker-coordinator.service."""

VERBS: Mapping[str, tuple[str, str]] = {
    "run": ("run", "run"),
    "setup": ("setup", "run"),
    "keygen": ("keys", "make"),
    "key": ("keys", "show"),
    "rotate-key": ("rotate_key", "run"),
    "devices": ("devices", "run"),
    "helpers": ("helpers", "run"),
    "clusters": ("clusters", "run"),
    "tasks": ("tasks", "run"),
    "analytics": ("analytics", "run"),
    "generate": ("generate", "run"),
    "database": ("database", "run"),
    "backup": ("backup", "back_up"),
    "restore": ("backup", "restore"),
    "authority": ("authority", "run"),
    "install-service": ("service", "install_service"),
    "uninstall-service": ("service", "uninstall_service"),
}
"""Each verb's module in `commands/`, and its function there; in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, 1 if a check failed, or 2 for an error that the operator can correct."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parser(given[0] if given else None).parse_args(given)
    configure_logging()
    try:
        with output_that_may_end(), missing_extra_named(PROGRAM):
            return _run(options)
    except Exception as error:
        if not _is_told_in_words(error):
            raise
        write_error(PROGRAM, error)
        return 2


def parser(verb: str | None = None) -> argparse.ArgumentParser:
    """The command line of one verb; the whole one, where `verb` is none."""
    program = program_parser(PROGRAM, "Coordinates a fleet of devices over an MQTT broker.", CONFIGURATION)
    commands = program.add_subparsers(dest="command", required=True, metavar="COMMAND")
    with_configuration = configuration_option()
    asked = VERBS if verb is None or verb not in VERBS else [verb]
    for name in dict.fromkeys(VERBS[each][0] for each in asked):
        _module(name).add_parser(commands, with_configuration)
    return program


@cache
def _module(name: str) -> ModuleType:
    with missing_extra_named(PROGRAM), lasting_imports():
        return import_module(f"broker_coordinator.commands.{name}")


def _run(options: argparse.Namespace) -> int:
    module, function = VERBS[options.command]
    return getattr(_module(module), function)(options) or 0


def _is_told_in_words(error: Exception) -> bool:
    if isinstance(error, ConfigurationError | ProtocolError):
        return True
    from broker_coordinator.storage.database import JournalUnavailableError  # noqa: PLC0415 - not every verb has one

    return isinstance(error, JournalUnavailableError)


if __name__ == "__main__":
    sys.exit(main())
