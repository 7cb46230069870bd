"""What the agent's databases hold in memory between two wakes, and what a large change writes."""

import sqlite3
from pathlib import Path

from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.shell.storage.page_cache import CACHE_KIB, keep_few_pages

PAGE_BYTES = 4096
FRAME_BYTES = PAGE_BYTES + 24
"""Of a page in the write-ahead log."""
ROWS, ROW_BYTES = 40, 30_000
"""A change that is ten times as large as what is kept."""


def written_by_a_large_change(path: Path, *, keeps_few: bool) -> int:
    """Bytes of the write-ahead log after one transaction that goes twice over all rows."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("CREATE TABLE residuals (id INTEGER PRIMARY KEY, state BLOB)")
    if keeps_few:
        keep_few_pages(connection)
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO residuals VALUES (?, ?)", ((row, bytes(ROW_BYTES)) for row in range(ROWS)))
    connection.executemany("UPDATE residuals SET state = ? WHERE id = ?", ((b"1" * ROW_BYTES, n) for n in range(ROWS)))
    connection.execute("COMMIT")
    written = Path(f"{path}-wal").stat().st_size
    connection.close()
    return written


def test_databases_of_the_agent_keep_few_pages(tmp_path):
    for held in (DeviceDatabase(tmp_path / "agent.db"), SampleStore(tmp_path / "samples.db", 1000)):
        assert held._connection.execute("PRAGMA cache_size").fetchone() == (-CACHE_KIB,)
        held.close()


def test_change_that_is_larger_than_what_is_kept_writes_no_page_twice(tmp_path):
    least = written_by_a_large_change(tmp_path / "usual.db", keeps_few=False)
    assert least >= ROWS * ROW_BYTES // PAGE_BYTES * FRAME_BYTES
    assert written_by_a_large_change(tmp_path / "small.db", keeps_few=True) == least
