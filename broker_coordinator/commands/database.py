"""`broker-coordinator database copy`."""

import argparse
from typing import TypeAlias

from broker_coordinator.commands.output import write_fields
from broker_coordinator.storage.copying import copy_database
from broker_coordinator.storage.database import read_database

Nouns: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_parser(nouns: Nouns) -> None:
    """The noun and its verb."""
    database = nouns.add_parser("database", help="copy a coordinator's database into another one")
    verbs = database.add_subparsers(dest="action", required=True)
    copy = verbs.add_parser(
        "copy",
        help="copy everything, from SQLite to PostgreSQL, say; no coordinator may run on either",
        description="FROM and TO are a SQLite file or postgresql+psycopg://user@host/name, as `database` in"
        " coordinator.toml. A password is read from the environment variable PGPASSWORD or from ~/.pgpass.",
    )
    copy.add_argument("source", metavar="FROM")
    copy.add_argument("target", metavar="TO", help="an empty database, or a file that does not exist")
    copy.add_argument("--json", action="store_true")


def run(options: argparse.Namespace) -> None:
    """Copy, and print the rows of each table."""
    copied = copy_database(read_database(options.source), read_database(options.target))
    write_fields(copied, as_json=options.json)
