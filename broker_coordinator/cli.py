"""The command `broker-coordinator`."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fleet_host.command_line import (
    add_key_verbs,
    configuration_option,
    output_that_may_end,
    print_key,
    print_new_key,
    program_parser,
    write_error,
)
from fleet_host.extras import missing_extra_named
from fleet_host.key_files import read_key_ring_file
from fleet_host.lasting_imports import lasting_imports
from fleet_host.log_lines import configure_logging
from fleet_host.services import add_service_verbs
from fleet_protocol.errors import ConfigurationError, ProtocolError
from fleet_protocol.keys import write_verify_key

PROGRAM = "broker-coordinator"
CONFIGURATION = Path("/etc/broker-coordinator/coordinator.toml")
"""Read where `--config` doesn't name another; the same as in systemd/broker-coordinator.service."""

with missing_extra_named(PROGRAM), lasting_imports():
    from broker_coordinator.commands import (
        analytics,
        authority,
        backup,
        clusters,
        database,
        devices,
        generate,
        helpers,
        rotate_key,
        run,
        service,
        setup,
        tasks,
    )
    from broker_coordinator.commands.certificates import authority_fingerprint
    from broker_coordinator.configuration import load_configuration
    from broker_coordinator.storage.database import JournalUnavailableError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, 1 if a check failed, or 2 for an error that the operator can correct."""
    options = parser().parse_args(arguments)
    configure_logging()
    try:
        with output_that_may_end(), missing_extra_named(PROGRAM):
            return _COMMANDS[options.command](options) or 0
    except (ConfigurationError, ProtocolError, JournalUnavailableError) as error:
        write_error(PROGRAM, error)
        return 2


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    program = program_parser(PROGRAM, "Coordinates a fleet of devices over an MQTT broker.", CONFIGURATION)
    commands = program.add_subparsers(dest="command", required=True, metavar="COMMAND")
    with_configuration = configuration_option()
    run.add_parser(commands, with_configuration)
    setup.add_parser(commands, with_configuration)
    add_key_verbs(commands, "the coordinator's signing key", with_configuration)
    rotate_key.add_parser(commands, with_configuration)
    devices.add_parser(commands, with_configuration)
    helpers.add_parser(commands, with_configuration)
    clusters.add_parser(commands, with_configuration)
    tasks.add_parser(commands, with_configuration)
    analytics.add_parser(commands, with_configuration)
    generate.add_parser(commands, with_configuration)
    database.add_parser(commands)
    backup.add_parsers(commands, with_configuration)
    authority.add_parser(commands, with_configuration)
    add_service_verbs(commands)
    return program


def _keygen(options: argparse.Namespace) -> None:
    print_new_key(options.file, PROGRAM)


def _key(options: argparse.Namespace) -> None:
    configuration = None if options.file else load_configuration(options.config)
    newest, *followed = read_key_ring_file(configuration.key_file if configuration else options.file, PROGRAM)
    print_key(newest.verify_key)
    for key in followed:
        sys.stdout.write(f"it follows  {write_verify_key(key.verify_key)}\n")
    if configuration and configuration.broker_accounts and configuration.broker.tls:
        sys.stdout.write(f"authority   {authority_fingerprint(configuration.broker.tls.authority).hex()}\n")


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int | None]] = {
    "run": run.run,
    "setup": setup.run,
    "keygen": _keygen,
    "key": _key,
    "rotate-key": rotate_key.run,
    "devices": devices.run,
    "helpers": helpers.run,
    "clusters": clusters.run,
    "tasks": tasks.run,
    "analytics": analytics.run,
    "generate": generate.run,
    "database": database.run,
    "authority": authority.run,
    "backup": backup.back_up,
    "restore": backup.restore,
    "install-service": service.install_service,
    "uninstall-service": service.uninstall_service,
}

if __name__ == "__main__":
    sys.exit(main())
