"""Opening the coordinator's database, SQLite or PostgreSQL, and telling an unavailable one from a mistake of ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.pool import ConnectionPoolEntry

from broker_coordinator.storage import by_driver
from broker_coordinator.storage.schema_upgrades import check_schema, create_schema
from fleet_host.disk_room import NEEDED_BYTES, free_bytes, full_disk_words, is_disk_full
from fleet_host.owned_files import make_owned_file
from fleet_protocol.errors import ConfigurationError

BUSY_TIMEOUT_MILLISECONDS = 5_000
"""How long a transaction waits for another process's. The longest of ours writes one version."""

CONNECT_TIMEOUT_SECONDS = 5
"""For PostgreSQL, from the first packet to a session."""

IN_MEMORY = Path(":memory:")
"""SQLite's name for a database without a file: one transaction is as whole as on a disk, and no disk is waited for."""

SILENCE_TIMEOUT_MILLISECONDS = 10_000
"""For PostgreSQL: how long sent data may stay unacknowledged before the connection counts as lost."""

WRITER_LOCK = 0x65_64_67_65_66_6C_6B
"""Key of the PostgreSQL advisory lock that every writer takes. Writers queue for it, as for SQLite's write lock."""

SHARED_INDEX_BYTES = 32 * 1024
"""The least that SQLite's file `-shm` has while the database is open; a full disk leaves a shorter one behind."""

Database = Path | URL
"""Where a coordinator's journal is: a SQLite file, or a PostgreSQL database."""


class JournalUnavailableError(Exception):
    """The database can't take or give data now (disk full, locked, gone). Nothing of the transaction happened."""


class DatabaseSetBackError(JournalUnavailableError):
    """The database lacks what this process knows to be committed: a backup or a replica that lagged took its place.
    Nothing of the transaction happened, and this process must stop: what it has in memory is of another database.
    """


class DiskFullError(JournalUnavailableError):
    """The database's disk is full; what is there can still be read."""


def read_database(text: str, password: str | None = None) -> Database:
    """What `database` in coordinator.toml means: a file, or `postgresql+psycopg://user@host/name`.

    Raises:
        ConfigurationError: a URL of another kind, or one with a password in it.
    """
    if "://" not in text:
        return Path(text)
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise ConfigurationError("`database` is no URL that can be read; write postgresql+psycopg://...") from error
    if url.drivername != "postgresql+psycopg":
        raise ConfigurationError(
            f"`database` begins with {url.drivername}://; give the path of a SQLite file or postgresql+psycopg://..."
        )
    if url.password is not None:
        raise ConfigurationError(
            "`database` holds a password, which anyone who reads this file would know; put it into a file that"
            " `database_password_file` names, or into the environment as PGPASSWORD"
        )
    return url.set(password=password)


def open_database(database: Database, *, read_only: bool = False) -> Engine:
    """Open it; unless `read_only`, a SQLite file is made where missing, and so are all tables.

    Raises:
        ConfigurationError: it can't be opened, or another release of edgeflock made it.
    """
    engine = _sqlite(database, read_only=read_only) if isinstance(database, Path) else _postgresql(database)
    try:
        if read_only:
            with reading(engine) as connection:
                check_schema(connection)
        else:
            with writing(engine) as connection:
                create_schema(connection)
    except (JournalUnavailableError, DBAPIError, ConfigurationError) as error:
        engine.dispose()
        raise ConfigurationError(f"database {name_of(database)}: {_with_remedy(error, database)}") from error
    return engine


def _with_remedy(error: Exception, database: Database) -> str:
    if isinstance(error, ConfigurationError | DiskFullError):  # which say what to do
        return str(error)
    if isinstance(database, Path):
        return f"{error}; let `database` name a SQLite file of its own, or none yet, that this account may write"
    return f"{error}; compare `database` with where PostgreSQL listens, and whom it lets in"


def name_of(database: Database) -> str:
    """How to speak of it in a log: without its password."""
    return str(database) if isinstance(database, Path) else database.render_as_string(hide_password=True)


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that holds the write lock from its start and commits at the end of the block.

    Raises:
        JournalUnavailableError: the database failed; the transaction is rolled back.
    """
    with translated(engine), engine.begin() as connection:
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one state of the database and blocks nobody.

    Raises:
        JournalUnavailableError: the database failed.
    """
    with translated(engine), engine.connect().execution_options(reads_only=True) as connection, connection.begin():
        yield connection


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """A block in which what the database can't do now is a JournalUnavailableError; a full disk is said to be full."""
    try:
        yield
    except (IntegrityError, DataError, ProgrammingError):
        raise
    except DBAPIError as error:
        said = " ".join(str(error.orig).split())
        file = _file_of(engine)
        if file is not None and error.orig is not None and is_disk_full(error.orig, file):
            raise DiskFullError(f"{said}; {full_disk_words(file)}") from error
        raise JournalUnavailableError(said) from error


def _file_of(engine: Engine) -> Path | None:
    """Where a SQLite database is; None for PostgreSQL."""
    name = engine.url.database
    if engine.dialect.name != "sqlite" or name is None:
        return None
    return Path(unquote(urlsplit(name).path) if name.startswith("file:") else name)


def _sqlite(path: Path, *, read_only: bool) -> Engine:
    if read_only and not path.exists():
        raise ConfigurationError(f"database {path} does not exist; has the coordinator run with this configuration?")
    if not path.parent.is_dir():
        raise ConfigurationError(f"database {path}: there is no folder {path.parent}; make it, or change `database`")
    if not read_only and path != IN_MEMORY:
        try:
            make_owned_file(path)
        except OSError as error:
            remedy = full_disk_words(path) if is_disk_full(error, path) else "name a file that can be written"
            raise ConfigurationError(f"database {path}: {error.strerror}; {remedy}") from error
    name, query = (f"file:{quote(str(path))}", _read_only_query(path)) if read_only else (str(path), {})
    engine = create_engine(URL.create("sqlite", database=name, query=query))
    event.listen(engine, "connect", _read_only_connection if read_only else _prepare_connection)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _read_only_query(path: Path) -> dict[str, str]:
    """A reader makes SQLite's shared files where no writer has. On a full disk it does without: nobody writes there."""
    query = {"uri": "true", "mode": "ro"}
    log, index = (path.with_name(path.name + suffix) for suffix in ("-wal", "-shm"))
    in_use = _size(log) > 0 or _size(index) >= SHARED_INDEX_BYTES
    return query if in_use or free_bytes(path) >= NEEDED_BYTES else query | {"immutable": "1"}


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _postgresql(url: URL) -> Engine:
    try:
        engine = create_engine(
            url,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                "tcp_user_timeout": SILENCE_TIMEOUT_MILLISECONDS,
                "options": f"-c lock_timeout={BUSY_TIMEOUT_MILLISECONDS} -c synchronous_commit=on",
            },
        )
    except ImportError as error:
        raise ConfigurationError(
            f"database {name_of(url)}: {error}; install the driver with: pip install 'edgeflock[postgresql]'"
        ) from error
    event.listen(engine, "begin", _begin_postgresql)
    return engine


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
    # The sqlite3 module would begin transactions on its own, too late for the write lock: `_begin_sqlite` does it.
    connection.isolation_level = None  # type: ignore[attr-defined]
    for statement in statements:
        connection.execute(statement)  # type: ignore[attr-defined]


def _begin_sqlite(connection: Connection) -> None:
    by_driver.execute(connection, "BEGIN" if reads_only(connection) else "BEGIN IMMEDIATE")


def _begin_postgresql(connection: Connection) -> None:
    by_driver.execute(
        connection,  # the driver sends BEGIN ahead of it
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
        if reads_only(connection)
        else f"SELECT pg_advisory_xact_lock({WRITER_LOCK})",
    )


def reads_only(connection: Connection) -> bool:
    """Whether it is one of `reading`."""
    return bool(connection.get_execution_options().get("reads_only"))
