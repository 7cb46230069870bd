"""What SQLite says of a file that a failing card has damaged. Agent and child judge alike."""

DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_SHORT_READ")
"""How SQLite's names for damage begin."""

SCHEMA_DAMAGED = "SQLITE_ERROR"
"""What SQLite says where a name in the file's schema is another one now: no such column, no such table."""

NOT_UTF_8 = "Could not decode to UTF-8"
"""How Python's error begins where a stored text is damaged; it has no name."""


def is_damage(error: Exception) -> bool:
    """Whether a file is not what SQLite wrote: not so where the disk is full, or another process has it.

    A UnicodeDecodeError comes where SQLite's own message quotes damaged bytes.
    """
    if isinstance(error, UnicodeDecodeError) or str(error).startswith(NOT_UTF_8):
        return True
    return getattr(error, "sqlite_errorname", "").startswith(DAMAGED)


def is_unusable(error: Exception) -> bool:
    """Whether a file that can be done without is better begun anew: it is damaged, or its schema is."""
    return is_damage(error) or getattr(error, "sqlite_errorname", "") == SCHEMA_DAMAGED
