"""Files that a failing card has damaged: how that is noticed, what is said, and how what is expendable makes room."""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge_agent.worker.damage import DAMAGED, is_damage, is_unusable
from fleet_host.disk_room import full_disk_words, is_disk_full
from fleet_host.log_lines import log_line

logger = logging.getLogger(__name__)

FILES_OF_A_DATABASE = ("", "-wal", "-shm")
SET_ASIDE_SUFFIX = ".damaged"
SOUND = "ok"
"""What SQLite's checks answer where there is no fault."""


def require_whole(connection: sqlite3.Connection) -> None:
    """Read every page; indexes that do not agree with their tables are made again from them.

    Raises:
        sqlite3.DatabaseError: one is damaged.
    """
    if _first_fault(connection, "integrity_check") == SOUND:
        return
    if (found := _first_fault(connection, "quick_check")) == SOUND:  # which does not look at indexes
        try:
            connection.execute("REINDEX")
        except sqlite3.IntegrityError as error:
            raise damage(str(error)) from error
        found = _first_fault(connection, "integrity_check")
    if found != SOUND:
        raise damage(found)


def require_same_tables(connection: sqlite3.Connection, expected: sqlite3.Connection) -> None:
    """Compare tables, columns and indexes with those of a new database: the schema's text may be damaged too.

    Raises:
        sqlite3.DatabaseError: they are others.
    """
    if others := sorted(_tables(expected) - _tables(connection)):
        raise damage(f"its schema is damaged: {others[0][0]} is not what it was made as")


def _tables(connection: sqlite3.Connection) -> set[tuple[str, str]]:
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()]
    pragmas = ("table_info", "index_list")
    return {(name, repr(connection.execute(f"PRAGMA {each}({name})").fetchall())) for name in names for each in pragmas}


def _first_fault(connection: sqlite3.Connection, check: str) -> str:
    try:
        return str(connection.execute(f"PRAGMA {check}(1)").fetchone()[0]).replace("\n", " ")
    except (UnicodeDecodeError, sqlite3.OperationalError) as error:  # its answer quotes damaged bytes
        if not is_damage(error):
            raise
        raise damage("its schema is damaged: it has bytes that are no text") from error


def damage(words: str) -> sqlite3.DatabaseError:
    """An error that `is_damage`."""
    error = sqlite3.DatabaseError(words)
    error.sqlite_errorname = DAMAGED[0]
    return error


def why_unusable(error: Exception, path: Path) -> str:
    """What is wrong with a device's file, what is lost, and what to do."""
    return f"{path}: {error}; {_remedy_for(error, path)}"


def _remedy_for(error: Exception, path: Path) -> str:
    if is_disk_full(error, path):
        return full_disk_words(path)
    if not is_unusable(error):
        return "give each agent a state_folder of its own that it may write"
    return (
        f"it is damaged. Move it away (mv {path.name} {path.name}{SET_ASIDE_SUFFIX}; its -wal and -shm files too) and"
        " start again. Lost are the updates that waited in it, and what they left behind; the device counts on behind"
        " the coordinator's numbers. The key and the samples are in files of their own, and stay"
    )


class WatchedConnection(sqlite3.Connection):
    """Notes the first damage that a cursor meets, and calls `on_damage`, whoever handles the error then."""

    damage: Exception | None = None
    on_damage: Callable[[], None] | None = None

    def execute(self, *arguments: Any) -> sqlite3.Cursor:
        """Execute a statement with a cursor that tells."""
        return _WatchedCursor(self).execute(*arguments)

    def executemany(self, *arguments: Any) -> sqlite3.Cursor:
        """Execute a statement several times with a cursor that tells."""
        return _WatchedCursor(self).executemany(*arguments)

    def met_damage(self, error: Exception) -> None:
        """Note it."""
        self.damage = self.damage or error
        if self.on_damage is not None:
            self.on_damage()


class _WatchedCursor(sqlite3.Cursor):
    connection: WatchedConnection

    def execute(self, *arguments: Any) -> "_WatchedCursor":
        with self._watched():
            super().execute(*arguments)
        return self

    def executemany(self, *arguments: Any) -> "_WatchedCursor":
        with self._watched():
            super().executemany(*arguments)
        return self

    def fetchone(self) -> Any:
        with self._watched():
            return super().fetchone()

    def fetchall(self) -> list[Any]:
        with self._watched():
            return super().fetchall()

    def __next__(self) -> Any:
        with self._watched():
            return super().__next__()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if is_damage(error):
                self.connection.met_damage(error)
            raise


def files_set_aside(path: Path) -> list[Path]:
    """What `set_aside` has left of a database."""
    files = (path.with_name(path.name + SET_ASIDE_SUFFIX + suffix) for suffix in FILES_OF_A_DATABASE)
    return [file for file in files if file.exists()]


def set_aside(path: Path, reason: str) -> None:
    """Rename a damaged database; the last one that was set aside is replaced, so that no more than one takes room."""
    for suffix in FILES_OF_A_DATABASE:
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.replace(file.with_name(path.name + SET_ASIDE_SUFFIX + suffix))
    logger.error(
        log_line(
            "file_set_aside",
            file=path.name,
            reason=reason,
            kept_as=path.name + SET_ASIDE_SUFFIX,
            remedy="none: what was in it comes again; if it repeats, replace the card",
        )
    )
