"""`broker-coordinator setup`: the coordinator's folder from a few answers."""

import argparse
import sys
from pathlib import Path

from broker_coordinator.configuration import PROGRAM, CoordinatorConfiguration
from fleet_host.command_line import Verbs, add_broker_options, add_verb, broker_answers
from fleet_host.configuration_file import parse_with_paths
from fleet_host.program_folder import make_program_folder, quoted
from fleet_protocol.keys import write_verify_key

COORDINATOR = """\
# Written by `broker-coordinator setup`. docs/configuration-reference.md lists every key. Relative paths start at this
# folder. Tasks are served from the database: broker-coordinator tasks publish FOLDER

fleet = {fleet}
key_file = "coordinator.key"
database = "/var/lib/broker-coordinator/coordinator.db"
enrolment = "closed" # a new device waits for: broker-coordinator devices approve

{broker}"""


def add_parser(verbs: Verbs, *parents: argparse.ArgumentParser) -> None:
    """The verb."""
    setup = add_verb(
        verbs, "setup", "Make the coordinator's key, and write its configuration from a few answers.", *parents
    )
    add_broker_options(setup)


def run(options: argparse.Namespace) -> None:
    """Write coordinator.toml and what it names beside it."""
    broker = broker_answers(options)
    text = COORDINATOR.format(fleet=quoted(options.fleet), broker=broker.table("coordinator"))
    path: Path = options.config
    parse_with_paths(text.encode(), CoordinatorConfiguration, str(path))
    public = make_program_folder(path, text, "coordinator.key", broker.copies("coordinator", PROGRAM), PROGRAM)
    sys.stdout.write(
        f"wrote {path}; keep a copy of {path.parent / 'coordinator.key'} in a safe place\n"
        f"every device pins this public key: {write_verify_key(public)}\n"
    )
