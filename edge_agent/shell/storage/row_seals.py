"""A checksum for each row of agent.db, so that one flipped bit on a card costs that row and nothing else.

SQLite has no checksums of content. A flipped byte in a residual made NaN of every later update; in a version number, it
would make every later manifest an old one. Triggers that live as long as the connection seal each row as it is written.
"""

import hashlib
import logging
import sqlite3
from typing import Final

from fleet_host.log_lines import log_line

logger = logging.getLogger(__name__)

SEAL_BYTES = 8
TABLE: Final = """CREATE TABLE IF NOT EXISTS seals (
    name TEXT NOT NULL, row INTEGER NOT NULL, seal BLOB NOT NULL, PRIMARY KEY (name, row)
) WITHOUT ROWID"""

LOST: Final = {
    "counters": "a number, which starts again behind what is known of it",
    "tasks": "what earlier updates of the task left behind; it starts from nothing",
    "manifests": "the task's newest known version; the next manifest names it",
    "held_versions": "which version is complete here; the next one is fetched whole",
    "sample_use": "how often rounds have gone over the task's samples; they are as new",
    "sample_steps": "what some rounds have told of the task's samples; all that are there are charged with them",
    "told_samples": "what rounds have told of a task's samples; steps that are lost too are charged as without noise",
    "query_answers": "that a query was answered, and what the answer cost; it may be answered again",
    "begun_queries": "on which terms a query was begun; its next round is taken as it comes",
    "turns": "how many updates of this device count in a task that takes few; the coordinator knows it",
    "noised_updates": "what some noised updates have told of this device; the next bundle's is charged with them",
    "own_shard": "which shard this device is in; it begins where agent.toml says, and a manifest leads it on",
    "own_models": "what this device keeps of the task's model to itself; it begins with the version's again",
    "gossip_states": "a part of what this device knows among neighbours: it asks a neighbour for its copy again, or"
    " begins another life",
    "drift_memories": "what the device's last round has left against drift; the next one is not corrected",
    "rosters": "which devices learn the task without a coordinator; the retained roster says it again",
    "round_figures": "what the device's last round was like; it is selected as a new one",
    "clusters": "which cluster of the task's devices this one is in; it is said, or chosen, anew",
    "kept_updates": "what is in a masked update that waits: it can't be learned again if its cohort is void",
    "outbox": "an update that waited, or was to be learned again",
}
"""The tables whose rows are sealed, and what a damaged row means."""


class RowSeals:
    """The seals of one open database. Rows are named by their rowid, which no damage to their columns changes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Seal every row from now on; where nothing is sealed yet, those that are there too."""
        self._connection = connection
        connection.create_function("row_seal", -1, row_seal, deterministic=True)
        connection.execute("PRAGMA recursive_triggers=ON")  # a row that is replaced fires them too
        is_new = not connection.execute("SELECT EXISTS (SELECT 1 FROM seals)").fetchone()[0]
        for table in LOST:
            if is_new:
                connection.execute(f"INSERT INTO seals SELECT '{table}', rowid, {self._seal_of(table)} FROM {table}")  # noqa: S608
            self._make_triggers(table)

    def set_damaged_aside(self) -> None:
        """Delete every row that is not as it was written, and say what was in it."""
        for table in LOST:
            for (row,) in self._connection.execute(f"SELECT rowid FROM {table}").fetchall():  # noqa: S608
                self.is_sound(table, row)

    def is_sound(self, table: str, row: int) -> bool:
        """Whether a row is as it was written. One that is not is deleted, and said."""
        found = self._connection.execute(
            f"SELECT {self._seal_of(table)} = (SELECT seal FROM seals WHERE name = ? AND row = ?)"  # noqa: S608
            f" FROM {table} WHERE rowid = ?",
            (table, row, row),
        ).fetchone()
        if found is not None and found[0]:
            return True
        self._connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,))  # noqa: S608
        self._connection.execute(f"REINDEX {table}")  # the index may name it as it was
        logger.error(
            log_line("row_set_aside", table=table, row=row, lost=LOST[table], remedy="if it repeats, replace the card")
        )
        return False

    def _make_triggers(self, table: str) -> None:
        put = f"INSERT OR REPLACE INTO seals VALUES ('{table}', NEW.rowid, {self._seal_of(table, 'NEW.')});"  # noqa: S608
        remove = f"DELETE FROM seals WHERE name = '{table}' AND row = OLD.rowid;"  # noqa: S608
        for event, action in (("INSERT", put), ("UPDATE", remove + put), ("DELETE", remove)):
            self._connection.execute(
                f"CREATE TEMP TRIGGER seal_{table}_{event.lower()} AFTER {event} ON main.{table} BEGIN {action} END"
            )

    def _seal_of(self, table: str, prefix: str = "") -> str:
        """The seal of a row in SQL. As bytes: damaged text need not be UTF-8 any more."""
        columns = [prefix + row[1] for row in self._connection.execute(f"PRAGMA table_info({table})")]
        return f"row_seal({', '.join(f'typeof({column}), CAST({column} AS BLOB)' for column in columns)})"


def row_seal(*values: str | bytes | None) -> bytes:
    """The checksum of a row's columns, each as its type and its bytes."""
    hasher = hashlib.blake2b(digest_size=SEAL_BYTES)
    for value in values:
        content = value.encode() if isinstance(value, str) else value or b""
        hasher.update(len(content).to_bytes(8, "big"))
        hasher.update(content)
    return hasher.digest()
