"""Files that a failing card has damaged: how that is noticed, what is said, and how what is expendable makes room."""

import logging
import sqlite3
from pathlib import Path

from edge_agent.worker.damage import DAMAGED, is_damage
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
        connection.execute("REINDEX")
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


def remedy_for(error: Exception, path: Path) -> str:
    """What to do about a device's database that can't be opened."""
    if not is_damage(error):
        return "give each agent a state_folder of its own that it may write"
    return (
        f"it is damaged. Move it away (mv {path.name} {path.name}{SET_ASIDE_SUFFIX}; its -wal and -shm files too) and"
        " start again. Lost are the updates that waited in it, and what they left behind; the device counts on behind"
        " the coordinator's numbers. The key and the samples are in files of their own, and stay"
    )


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
