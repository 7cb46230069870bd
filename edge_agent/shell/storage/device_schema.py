"""The tables of `agent.db`, and how the file of an earlier release becomes one of this release."""

import sqlite3
from contextlib import closing

from edge_agent.shell.storage import (
    begun_queries,
    drift_memories,
    gossip_states,
    kept_updates,
    noised_updates,
    own_models,
    own_shard,
    query_answers,
    rosters,
    round_figures,
    row_seals,
    sample_steps,
    sample_use,
    task_clusters,
    task_turns,
    told_samples,
)
from edge_agent.shell.storage.damaged_files import require_same_tables
from fleet_protocol.envelope import read_envelope
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.kinds import UPDATE, Update, encode_payload
from fleet_protocol.limits import MAX_UPDATE_BYTES

SCHEMA_VERSION = 17
"""In `PRAGMA user_version`. Files of version 1 say 0: that release did not number them."""

TABLES = (
    "CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS tasks (
        task TEXT PRIMARY KEY, bundle TEXT NOT NULL, rounds INTEGER NOT NULL, trained_through INTEGER NOT NULL,
        residual BLOB NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS manifests (
        task TEXT PRIMARY KEY, version INTEGER NOT NULL, bundle TEXT NOT NULL, weights TEXT NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS held_versions (
        task TEXT PRIMARY KEY, version INTEGER NOT NULL, bundle TEXT NOT NULL, weights TEXT NOT NULL
    )""",
    # `returned` is 1 where a payload was rejected and waits for the next round's residual instead of for its receipt.
    # Large columns come last: SQLite then reads the others without them.
    """CREATE TABLE IF NOT EXISTS outbox (
        sequence INTEGER PRIMARY KEY, returned INTEGER NOT NULL, kind INTEGER NOT NULL, task TEXT NOT NULL,
        bundle TEXT NOT NULL, base_version INTEGER NOT NULL, recipient BLOB NOT NULL, digest BLOB NOT NULL,
        payload BLOB NOT NULL, envelope BLOB NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS settled (
        sequence INTEGER PRIMARY KEY, digest BLOB NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL
    )""",
    row_seals.TABLE,
    sample_use.TABLE,
    sample_steps.TABLE,
    told_samples.TABLE,
    query_answers.TABLE,
    begun_queries.TABLE,
    task_clusters.TABLE,
    kept_updates.TABLE,
    task_turns.TABLE,
    noised_updates.TABLE,
    own_shard.TABLE,
    own_models.TABLE,
    round_figures.TABLE,
    drift_memories.TABLE,
    rosters.TABLE,
    gossip_states.TABLE,
)

COLUMNS_OF_VERSION_3 = (
    ("tasks", "generation"),
    ("manifests", "generation"),
    ("manifests", "removed"),
    ("held_versions", "generation"),
    ("outbox", "generation"),
)
"""Added to the tables above: what is there without them is of generation 0."""


def prepare(connection: sqlite3.Connection) -> int:
    """Make the tables, or bring those of an earlier release up to date, inside the transaction that is open. Returns
    the schema that was there, 0 for a new file.

    Raises:
        ConfigurationError: a later release wrote the file.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == SCHEMA_VERSION:
        return SCHEMA_VERSION
    if version > SCHEMA_VERSION:
        raise ConfigurationError(
            f"agent.db has layout {version}, this edgeflock knows {SCHEMA_VERSION}: update edgeflock"
        )
    is_old = connection.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'returned'").fetchone()[0]
    if is_old:
        connection.execute("ALTER TABLE outbox RENAME TO outbox_of_version_1")
    for table in TABLES:
        connection.execute(table)
    if is_old:
        _move_waiting(connection)
        _move_returned(connection)
        connection.execute("DROP TABLE outbox_of_version_1")
        connection.execute("DROP TABLE returned")
    for table_name, column in COLUMNS_OF_VERSION_3 if version < 3 else ():
        connection.execute(f"ALTER TABLE {table_name} ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return int(version)


def require_schema(connection: sqlite3.Connection) -> None:
    """Compare the tables with those of a new file.

    Raises:
        sqlite3.DatabaseError: the schema is damaged.
    """
    with closing(sqlite3.connect(":memory:")) as new:
        prepare(new)
        require_same_tables(connection, new)


def _move_waiting(connection: sqlite3.Connection) -> None:
    """Version 1 kept envelopes too. An encrypted payload's box can't be made again: that envelope stays."""
    old = connection.execute(
        "SELECT sequence, task, bundle, base_version, digest, payload, envelope FROM outbox_of_version_1"
    )
    for *fields, payload, envelope in old.fetchall():
        kind = read_envelope(envelope, MAX_UPDATE_BYTES).header.kind
        kept = envelope if kind.content else b""
        sequence, task, bundle, base_version, digest = fields
        connection.execute(
            "INSERT INTO outbox VALUES (?, 0, ?, ?, ?, ?, x'', ?, ?, ?)",
            (sequence, kind.number, task, bundle, base_version, digest, payload, kept),
        )


def _move_returned(connection: sqlite3.Connection) -> None:
    """Version 1 kept of a rejected update what its payload held for the codec: all that the residual needs."""
    old = connection.execute(
        "SELECT sequence, task, bundle, packed, (SELECT digest FROM settled WHERE settled.sequence = returned.sequence)"
        " FROM returned"
    )
    for sequence, task, bundle, packed, digest in old.fetchall():
        payload = encode_payload(Update(samples=0, steps=0, loss=0.0, packed=packed))
        connection.execute(
            "INSERT INTO outbox VALUES (?, 1, ?, ?, ?, 0, x'', ?, ?, x'')",
            (sequence, UPDATE.number, task, bundle, digest or b"", payload),
        )
