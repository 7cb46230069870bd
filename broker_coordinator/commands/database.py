"""`broker-coordinator database copy`."""

import argparse

from broker_coordinator.commands.output import add_noun, write_fields
from broker_coordinator.storage.copying import copy_database
from broker_coordinator.storage.database import read_database
from fleet_host.command_line import Verbs


def add_parser(nouns: Verbs, *_parents: argparse.ArgumentParser) -> None:
    """The noun and its verb."""
    verb = add_noun(nouns, "database", "Copy a coordinator's database into another one.")
    copy = verb("copy", "Copy everything, from SQLite to PostgreSQL, say; no coordinator may run on either.")
    copy.add_argument(
        "source",
        metavar="FROM",
        help="a SQLite file or postgresql+psycopg://user@host/name; its password in PGPASSWORD or ~/.pgpass",
    )
    copy.add_argument("target", metavar="TO", help="likewise: an empty database, or a file that does not exist")


def run(options: argparse.Namespace) -> None:
    """Copy, and print the rows of each table."""
    copied = copy_database(read_database(options.source), read_database(options.target))
    write_fields(copied, as_json=options.json)
