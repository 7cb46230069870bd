"""The first numbers of samples in `samples.db` that were corrected: what rounds have told was charged by these."""

import sqlite3


def note_correction(connection: sqlite3.Connection, sample: int, newest: int) -> None:
    """Note that a sample, corrected before or not, is about to have another number, inside the transaction that is
    open.
    """
    connection.execute(
        "INSERT INTO corrected SELECT ?2, IFNULL((SELECT first FROM corrected WHERE sample = ?1), ?1)", (sample, newest)
    )


def first_after(connection: sqlite3.Connection, task: str, sample: int) -> bool:
    """Whether a sample of a task has come under a number above this one."""
    query = (
        "SELECT EXISTS (SELECT 1 FROM samples LEFT JOIN corrected ON sample = id"
        " WHERE task = ?1 AND id > ?2 AND IFNULL(first, id) > ?2)"
    )
    return bool(connection.execute(query, (task, sample)).fetchone()[0])
