"""How much room the coordinator's database takes."""

import math
from pathlib import Path

from sqlalchemy import Engine, func, select

from broker_coordinator.storage.database import JournalUnavailableError, reading

SQLITE_FILES = ("", "-wal")
"""What SQLite keeps beside the file, and what has no data."""


def database_bytes(engine: Engine) -> float:
    """Of SQLite's file with its log, or of the whole PostgreSQL database; NaN while it can't be told. Any thread."""
    try:
        if engine.dialect.name == "sqlite":
            return sum(_bytes_of(Path(f"{engine.url.database}{ending}")) for ending in SQLITE_FILES)
        with reading(engine) as connection:
            return connection.scalar(select(func.pg_database_size(func.current_database()))) or math.nan
    except (OSError, JournalUnavailableError):
        return math.nan


def _bytes_of(path: Path) -> int:
    """0 where there is none: SQLite has no log before the first transaction."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
