"""The tables of `samples.db`, and whether a file has them undamaged.

`features` are what the backbone whose file has the hash `backbone` makes of a sample. `unjudged` are samples, as JSON,
that came before their task's schema was known. `turns` say which samples make room first, where that is not simply the
oldest. `dropped` counts what retention dropped. `arrivals` say when a sample came, or was corrected, by this machine's
clock, in seconds since 1970, where that is noted. `budgets` name the budget of agent.toml that a sample came with.
`corrected` have another number now than the `first` one, under which rounds may have learned from them.
Stores made before there were these gain the tables.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass

from edge_agent.shell.storage.damaged_files import damage, require_same_tables
from edge_agent.sources.sample_commands import HIGHEST_NUMBER

SCHEMA = """
CREATE TABLE IF NOT EXISTS samples (
    id INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, inputs BLOB NOT NULL, label INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS samples_of_task ON samples (task, id);
CREATE TABLE IF NOT EXISTS features (sample INTEGER PRIMARY KEY, backbone TEXT NOT NULL, features BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS features_go_with_their_sample AFTER DELETE ON samples
BEGIN DELETE FROM features WHERE sample = OLD.id; END;
CREATE TABLE IF NOT EXISTS unjudged (id INTEGER PRIMARY KEY AUTOINCREMENT, task TEXT NOT NULL, sample BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS turns (
    sample INTEGER PRIMARY KEY, task TEXT NOT NULL, class INTEGER NOT NULL, turn INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS turns_of_task ON turns (task, class, turn);
CREATE TRIGGER IF NOT EXISTS turns_go_with_their_sample AFTER DELETE ON samples
BEGIN DELETE FROM turns WHERE sample = OLD.id; END;
CREATE TABLE IF NOT EXISTS arrivals (sample INTEGER PRIMARY KEY, received_at INTEGER NOT NULL);
CREATE TRIGGER IF NOT EXISTS arrivals_go_with_their_sample AFTER DELETE ON samples
BEGIN DELETE FROM arrivals WHERE sample = OLD.id; END;
CREATE TABLE IF NOT EXISTS budgets (sample INTEGER PRIMARY KEY, budget TEXT NOT NULL);
CREATE TRIGGER IF NOT EXISTS budgets_go_with_their_sample AFTER DELETE ON samples
BEGIN DELETE FROM budgets WHERE sample = OLD.id; END;
CREATE TABLE IF NOT EXISTS corrected (sample INTEGER PRIMARY KEY, first INTEGER NOT NULL);
CREATE TRIGGER IF NOT EXISTS corrected_go_with_their_sample AFTER DELETE ON samples
BEGIN DELETE FROM corrected WHERE sample = OLD.id; END;
CREATE TABLE IF NOT EXISTS dropped (
    task TEXT NOT NULL, rule TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (task, rule)
) WITHOUT ROWID;
"""

NOTE_ARRIVALS = """
CREATE TEMP TRIGGER arrivals_come_with_their_sample AFTER INSERT ON main.samples
BEGIN INSERT OR REPLACE INTO arrivals VALUES (NEW.id, CAST(strftime('%s', 'now') AS INTEGER)); END
"""
"""For as long as the connection lasts: a row more for each sample, which a card is spared where nobody asks for it."""

SAMPLE_BYTES = (
    "length(inputs) + CASE typeof(label) WHEN 'blob' THEN length(label) ELSE 0 END"
    " + IFNULL((SELECT length(features) FROM features WHERE sample = samples.id), 0)"
)
"""What a sample counts against the quota, in SQL: values and features, without SQLite's own overhead."""


@dataclass(frozen=True, slots=True)
class Held:
    """What is stored of one task: how many samples, the highest id, and bytes as `SAMPLE_BYTES` counts them."""

    count: int = 0
    newest: int = 0
    size: int = 0


def sample_size(inputs: bytes, label: int | bytes) -> int:
    """As `SAMPLE_BYTES` counts it, without features."""
    return len(inputs) + (len(label) if isinstance(label, bytes) else 0)


def require_sound(connection: sqlite3.Connection) -> None:
    """Look at what a check of every page does not.

    Raises:
        sqlite3.DatabaseError: it is damaged.
    """
    with closing(sqlite3.connect(":memory:")) as new:
        new.executescript(SCHEMA)
        require_same_tables(connection, new)
    numbers = (
        "SELECT seq FROM sqlite_sequence UNION ALL SELECT MAX(id) FROM samples UNION ALL SELECT MAX(id) FROM unjudged"
    )
    (highest,) = connection.execute(f"SELECT MAX(seq) FROM ({numbers})").fetchone()  # noqa: S608 - a constant
    if (highest or 0) > HIGHEST_NUMBER:
        raise damage(f"a sample has the number {highest}")
