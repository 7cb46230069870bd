"""`broker-coordinator keygen | key`: the coordinator's signing key."""

import argparse
import sys
from pathlib import Path

from fleet_host.command_line import Verbs, add_key_verbs, print_key, print_new_key
from fleet_host.key_files import read_key_ring_file
from fleet_protocol.keys import write_verify_key

PROGRAM = "broker-coordinator"


def add_parser(verbs: Verbs, *parents: argparse.ArgumentParser) -> None:
    """Both verbs."""
    add_key_verbs(verbs, "the coordinator's signing key", *parents)


def make(options: argparse.Namespace) -> None:
    """Make a key file.

    Raises:
        ConfigurationError: it exists, or can't be written.
    """
    print_new_key(options.file, PROGRAM)


def show(options: argparse.Namespace) -> None:
    """Print the public halves, and the authority's fingerprint where the coordinator makes the broker's accounts.

    Raises:
        ConfigurationError: configuration or key can't be read.
    """
    if options.file:
        _show_ring(options.file)
        return
    from broker_coordinator.commands.certificates import authority_fingerprint  # noqa: PLC0415 - a file needs neither
    from broker_coordinator.configuration import load_configuration  # noqa: PLC0415

    configuration = load_configuration(options.config)
    _show_ring(configuration.key_file)
    if configuration.broker_accounts and configuration.broker.tls:
        sys.stdout.write(f"authority   {authority_fingerprint(configuration.broker.tls.authority).hex()}\n")


def _show_ring(file: Path) -> None:
    newest, *followed = read_key_ring_file(file, PROGRAM)
    print_key(newest.verify_key)
    for key in followed:
        sys.stdout.write(f"it follows  {write_verify_key(key.verify_key)}\n")
