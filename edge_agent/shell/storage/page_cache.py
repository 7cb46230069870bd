"""How much of a database SQLite keeps in memory: little, as an agent sleeps longer than it works."""

import sqlite3

CACHE_KIB = 128
"""SQLite's own default of 2,000 would be held for good, for each database, from the first round on."""


def keep_few_pages(connection: sqlite3.Connection) -> None:
    """Keep `CACHE_KIB` of pages; a transaction that changes more holds them all, as it would write some twice."""
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    connection.execute("PRAGMA cache_spill=OFF")
