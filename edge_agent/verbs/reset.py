"""`edge-agent reset`: forgets what a device has learned, so that it starts anew; key and configuration stay."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from edge_agent.shell.storage.series_memory import FILE as SERIES
from fleet_protocol.errors import ConfigurationError

LEARNED = "agent.db"
"""Residuals, updates that wait, versions, and how far samples were trained on."""
SAMPLES = "samples.db"
FETCHED = "blobs"


def reset_device(folder: Path, *, with_samples: bool) -> list[str]:
    """Delete what was learned and fetched, and the samples where asked; returns the names of what was there.

    Raises:
        ConfigurationError: the agent runs, or the folder can't be changed. Then the next try goes on.
    """
    databases = [folder / name for name in (LEARNED, *([SAMPLES] if with_samples else [])) if (folder / name).exists()]
    series = [folder / SERIES] if with_samples and (folder / SERIES).exists() else []
    fetched = [folder / FETCHED] if (folder / FETCHED).exists() else []
    try:
        for database in databases:
            _close(database)
        for file in (*databases, *series):
            file.unlink()
        for blobs in fetched:
            shutil.rmtree(blobs)
    except (OSError, sqlite3.Error) as error:
        raise ConfigurationError(
            f"state_folder {folder}: {error}; stop the agent (systemctl stop edge-agent), and run this with its account"
        ) from error
    return [each.name for each in (*databases, *series, *fetched)]


def _close(database: Path) -> None:
    """Bring what is in the write-ahead log into the database, which deletes the log: a new database must not meet it.

    Raises:
        sqlite3.Error: another process has it open.
    """
    with closing(sqlite3.connect(database, timeout=0)) as connection:
        try:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("BEGIN EXCLUSIVE")
            connection.execute("COMMIT")
            connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:  # damaged: nothing of it is kept
            for suffix in ("-wal", "-shm"):
                database.with_name(database.name + suffix).unlink(missing_ok=True)
