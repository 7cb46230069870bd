"""What SQLite says of a file that a failing card has damaged. Agent and child judge alike."""

import sqlite3

DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_SHORT_READ")
"""How SQLite's names for damage begin."""


def is_damage(error: sqlite3.Error) -> bool:
    """Whether a file is not what SQLite wrote: not so where the disk is full, or another process has it."""
    return getattr(error, "sqlite_errorname", "").startswith(DAMAGED)
