"""Which cluster of a task's devices this one is in, as the last receipt has said, or as it chose itself: a table of
agent.db."""

import logging
import sqlite3
from typing import Final

from fleet_host.log_lines import log_line

logger = logging.getLogger(__name__)

TABLE: Final = "CREATE TABLE IF NOT EXISTS clusters (task TEXT PRIMARY KEY, cluster INTEGER NOT NULL)"


def read_cluster(connection: sqlite3.Connection, task: str) -> tuple[int, int]:
    """The row's number, 0 where there is none, and the cluster."""
    row = connection.execute("SELECT rowid, cluster FROM clusters WHERE task = ?", (task,)).fetchone()
    return row or (0, 0)


def write_cluster(connection: sqlite3.Connection, task: str, cluster: int) -> None:
    """Store it, and say it, where another one is stored: mostly it is the same."""
    if read_cluster(connection, task)[1] != cluster:
        connection.execute("INSERT OR REPLACE INTO clusters VALUES (?, ?)", (task, cluster))
        logger.info(log_line("cluster_changed", task=task, cluster=cluster))
