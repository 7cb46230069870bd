"""Copies a coordinator's whole database into another one, of the same kind or not: SQLite to PostgreSQL, say."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import JSON, Connection, Engine, Table, Text, cast, delete, func, insert, select

from broker_coordinator.storage.database import Database, name_of, open_database, reading, writing
from broker_coordinator.storage.lease import VERSIONS, Lease
from broker_coordinator.storage.schema import bundle_files, leases, metadata, payloads, schema_number, versions
from fleet_protocol.errors import ConfigurationError

ROWS_AT_A_TIME = {versions: 1, bundle_files: 1, payloads: 20}
"""As many as fit well into memory: a version may have three times 64 MiB, a payload 4 MiB. Of other tables, 500."""

_OF_EACH_DATABASE = (schema_number, leases)
"""Not copied."""

_TABLES = [table for table in metadata.sorted_tables if table not in _OF_EACH_DATABASE]
"""In an order in which each refers to earlier ones alone."""


def copy_database(source: Database, target: Database) -> dict[str, int]:
    """Copy everything in one transaction, and compare the numbers of rows, which are returned by table.

    Raises:
        ConfigurationError: there is no source, a coordinator works on one of them, or the target is not empty.
        JournalUnavailableError: a database failed; nothing was copied.
    """
    if _is_one(source, target):
        raise ConfigurationError(f"{name_of(source)} is both FROM and TO; name an empty database as TO")
    require_database(source)
    with (
        alone(source) as source_engine,
        alone(target) as target_engine,
        reading(source_engine) as reader,
        writing(target_engine) as writer,
    ):
        if full := tables_with_rows(writer):
            raise ConfigurationError(
                f"database {name_of(target)} has rows in {', '.join(full)} already; name an empty one as TO"
            )
        return copy_rows(reader, writer)


def require_database(database: Database) -> None:
    """Look whether there is one, which opening it would make.

    Raises:
        ConfigurationError: there is none, or not of this schema.
    """
    open_database(database, read_only=True).dispose()


def tables_with_rows(connection: Connection) -> list[str]:
    """The names of those that are not empty."""
    return [table.name for table in _TABLES if _count(connection, table)]


def delete_rows(connection: Connection) -> None:
    """Empty every table."""
    for table in reversed(_TABLES):
        connection.execute(delete(table))


def copy_rows(reader: Connection, writer: Connection) -> dict[str, int]:
    """Copy every row into tables that are empty; returns how many, by table.

    Raises:
        ConfigurationError: fewer rows have come than there are.
    """
    return {table.name: _copy(reader, writer, table) for table in _TABLES}


def _is_one(source: Database, target: Database) -> bool:
    """Whether both are the same database, a file by any of its names."""
    if isinstance(source, Path) and isinstance(target, Path) and source.exists() and target.exists():
        return source.samefile(target)
    return source == target


@contextmanager
def alone(database: Database) -> Iterator[Engine]:
    """A database on which no coordinator works meanwhile.

    Raises:
        ConfigurationError: one does.
    """
    engine = open_database(database)
    try:
        lease = Lease(engine, [VERSIONS])
        if holder := lease.take():
            raise ConfigurationError(f"database {name_of(database)} is in use ({holder}); stop that coordinator first")
        try:
            yield engine
        finally:
            lease.release()
    finally:
        engine.dispose()


def _copy(reader: Connection, writer: Connection, table: Table) -> int:
    # JSON is copied as its text, to the last digit; and rows go through the driver, which takes that text as it is.
    columns = [
        cast(column, Text).label(column.name) if isinstance(column.type, JSON) else column for column in table.columns
    ]
    names = [column.name for column in table.columns]
    statement = str(insert(table).compile(dialect=writer.dialect, column_keys=names))
    streamed = reader.execution_options(yield_per=ROWS_AT_A_TIME.get(table, 500))
    copied = 0
    for rows in streamed.execute(select(*columns)).partitions():
        positional = [tuple(row) for row in rows]
        values = positional if writer.dialect.positional else [dict(zip(names, row, strict=True)) for row in positional]
        writer.exec_driver_sql(statement, values)
        copied += len(positional)
    if (found := _count(writer, table)) != copied:
        raise ConfigurationError(f"table {table.name}: {copied} rows were copied, {found} are there; nothing was kept")
    return copied


def _count(connection: Connection, table: Table) -> int:
    return connection.scalar(select(func.count()).select_from(table)) or 0
