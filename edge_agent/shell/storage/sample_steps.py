"""Noised steps that rounds took on a task's samples: a table of agent.db, which `core.sample_ledger` makes sense of."""

import sqlite3
from typing import Final

from edge_agent.core.sample_ledger import Charge
from fleet_protocol.privacy.renyi import Mechanism, StepsTaken

TABLE: Final = """CREATE TABLE IF NOT EXISTS sample_steps (
    task TEXT NOT NULL, newest INTEGER NOT NULL, noise REAL NOT NULL, rate REAL NOT NULL, steps INTEGER NOT NULL,
    PRIMARY KEY (task, newest, noise, rate)
)"""

MOST_ROWS: Final = 1000
"""Of a task: when there are more, the oldest two become one that is charged to all samples of both."""


def read_charges(connection: sqlite3.Connection, task: str) -> list[tuple[int, Charge]]:
    """Each row's number, and what it says."""
    rows = connection.execute("SELECT rowid, newest, noise, rate, steps FROM sample_steps WHERE task = ?", (task,))
    return [
        (number, Charge(newest, StepsTaken(Mechanism(noise, rate), steps)))
        for number, newest, noise, rate, steps in rows
    ]


def add_charge(connection: sqlite3.Connection, task: str, charge: Charge) -> None:
    """Add the steps to what is stored, inside the transaction that is open; negative ones give some back."""
    mechanism = charge.taken.mechanism
    connection.execute(
        "INSERT INTO sample_steps VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (task, newest, noise, rate) DO UPDATE SET steps = steps + excluded.steps",
        (task, charge.newest, mechanism.noise_multiplier, mechanism.sampling_rate, charge.taken.steps),
    )
    connection.execute("DELETE FROM sample_steps WHERE task = ? AND steps <= 0", (task,))
    _merge_oldest(connection, task)


def _merge_oldest(connection: sqlite3.Connection, task: str) -> None:
    charges = sorted(read_charges(connection, task), key=lambda row: row[1].newest)
    if len(charges) <= MOST_ROWS:
        return
    (number, oldest), (_, next_) = charges[:2]
    connection.execute("DELETE FROM sample_steps WHERE rowid = ?", (number,))
    add_charge(connection, task, Charge(next_.newest, oldest.taken))
