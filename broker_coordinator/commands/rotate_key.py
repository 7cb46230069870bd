"""`broker-coordinator rotate-key`: a new signing key, which devices follow as the one before it vouches for it."""

import argparse
import sys

from broker_coordinator.configuration import PROGRAM, load_configuration
from fleet_host.command_line import Verbs, add_verb, print_key
from fleet_host.key_files import add_newest_key


def add_parser(verbs: Verbs, *parents: argparse.ArgumentParser) -> None:
    """The verb."""
    add_verb(verbs, "rotate-key", "Make a new signing key, which devices follow after a restart.", *parents)


def run(options: argparse.Namespace) -> None:
    """Put a new key above those in the key file.

    Raises:
        ConfigurationError: the key file can't be used, or not be written; then it stays as it is.
    """
    file = load_configuration(options.config).key_file
    print_key(add_newest_key(file, PROGRAM))
    sys.stdout.write(
        f"now keep a copy of {file}, and restart: systemctl restart {PROGRAM}. From then on it signs with this key;"
        " devices follow by themselves, and new ones are given this key\n"
    )
