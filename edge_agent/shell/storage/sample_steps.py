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
"""Of a task: when there are more, the oldest two of one mechanism become one, charged to all samples of both."""


def read_charges(connection: sqlite3.Connection, task: str) -> list[tuple[int, Charge]]:
    """Each row's number, and what it says, in the order in which they began."""
    query = "SELECT rowid, newest, noise, rate, steps FROM sample_steps WHERE task = ? ORDER BY rowid"
    rows = connection.execute(query, (task,))
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
    oldest: dict[Mechanism, tuple[int, Charge]] = {}
    for number, charge in charges:
        before, same = oldest.setdefault(charge.taken.mechanism, (number, charge))
        if before != number:  # the row that began first stays: samples keep the mechanism that they began with
            connection.execute("DELETE FROM sample_steps WHERE rowid = ?", (max(before, number),))
            steps = same.taken.steps + charge.taken.steps
            update = "UPDATE sample_steps SET newest = ?, steps = ? WHERE rowid = ?"
            connection.execute(update, (charge.newest, steps, min(before, number)))
            return
