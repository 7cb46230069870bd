"""Files that a failing card has damaged: how that is noticed, what is said, and how what is expendable makes room."""

import logging
import sqlite3
from pathlib import Path

from edge_agent.worker.damage import DAMAGED, is_damage
from fleet_host.log_lines import log_line

logger = logging.getLogger(__name__)

FILES_OF_A_DATABASE = ("", "-wal", "-shm")
SET_ASIDE_SUFFIX = ".damaged"


def require_whole(connection: sqlite3.Connection) -> None:
    """Read every page.

    Raises:
        sqlite3.DatabaseError: one is damaged.
    """
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        error = sqlite3.DatabaseError(found.replace("\n", " "))
        error.sqlite_errorname = DAMAGED[0]
        raise error


def remedy_for(error: sqlite3.Error, path: Path) -> str:
    """What to do about a device's database that can't be opened."""
    if not is_damage(error):
        return "give each agent a state_folder of its own that it may write"
    return (
        f"it is damaged. Move it away (mv {path.name} {path.name}{SET_ASIDE_SUFFIX}; its -wal and -shm files too) and"
        " start again. Lost are the updates that waited in it, and what they left behind; the device counts on behind"
        " the coordinator's numbers. The key and the samples are in files of their own, and stay"
    )


def make_room_if_damaged(path: Path) -> None:
    """Set a database aside that can be done without, if it is damaged.

    Raises:
        sqlite3.OperationalError: it can't be read at all.
    """
    if not path.exists():
        return
    connection = sqlite3.connect(path)
    try:
        require_whole(connection)
        reason = ""
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        reason = str(error)
    finally:
        connection.close()  # before its files have other names: closing deletes them by their path
    if reason:
        set_aside(path, reason)


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
