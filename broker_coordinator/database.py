"""Opening the coordinator's database, and telling an unavailable one from a mistake of ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.pool import ConnectionPoolEntry

from broker_coordinator.schema import metadata
from fleet_protocol.errors import ConfigurationError

BUSY_TIMEOUT_MILLISECONDS = 5_000
"""How long a SQLite transaction waits for another process's. The longest of ours writes one version."""


class JournalUnavailableError(Exception):
    """The database can't take or give data now (disk full, locked, gone). Nothing of the transaction happened."""


def open_database(path: Path, *, read_only: bool = False) -> Engine:
    """Open the SQLite file at `path`; unless `read_only`, it is made where missing, with all tables.

    Raises:
        ConfigurationError: it can't be opened.
    """
    if read_only and not path.exists():
        raise ConfigurationError(f"database {path} does not exist; has the coordinator run with this configuration?")
    if not path.parent.is_dir():
        raise ConfigurationError(f"database {path}: there is no folder {path.parent}; make it, or change `database`")
    name, query = (f"file:{quote(str(path))}", {"uri": "true", "mode": "ro"}) if read_only else (str(path), {})
    engine = create_engine(URL.create("sqlite", database=name, query=query))
    event.listen(engine, "connect", _read_only_connection if read_only else _prepare_connection)
    event.listen(engine, "begin", _begin)
    try:
        if not read_only:
            with writing(engine) as connection:
                metadata.create_all(connection)
    except (JournalUnavailableError, DBAPIError) as error:
        raise ConfigurationError(f"database {path}: {error}") from error
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that holds the write lock from its start and commits at the end of the block.

    Raises:
        JournalUnavailableError: the database failed; the transaction is rolled back.
    """
    with _translated(), engine.begin() as connection:
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one state of the database and blocks nobody.

    Raises:
        JournalUnavailableError: the database failed.
    """
    with _translated(), engine.execution_options(reads_only=True).connect() as connection:
        yield connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (IntegrityError, DataError, ProgrammingError):
        raise
    except DBAPIError as error:
        raise JournalUnavailableError(str(error.orig)) from error


def _prepare_connection(connection: object, _entry: ConnectionPoolEntry) -> None:
    _execute(
        connection,
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "PRAGMA foreign_keys = ON",
        f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MILLISECONDS}",
    )


def _read_only_connection(connection: object, _entry: ConnectionPoolEntry) -> None:
    _execute(connection, f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MILLISECONDS}")


def _execute(connection: object, *statements: str) -> None:
    # The sqlite3 module would begin transactions on its own, too late for the write lock: `_begin` does it instead.
    connection.isolation_level = None  # type: ignore[attr-defined]
    for statement in statements:
        connection.execute(statement)  # type: ignore[attr-defined]


def _begin(connection: Connection) -> None:
    reads_only = connection.get_execution_options().get("reads_only")
    connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")
