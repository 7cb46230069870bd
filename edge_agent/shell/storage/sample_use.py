"""How far and how often rounds have gone over a task's samples, whether or not they sent anything: a table of agent.db.

It is apart from the residual, which a round that sends nothing leaves as it is: that spares the card a write of it.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final

TABLE: Final = """CREATE TABLE IF NOT EXISTS sample_use (
    task TEXT PRIMARY KEY, bundle TEXT NOT NULL, trained_through INTEGER NOT NULL, epochs REAL NOT NULL,
    withheld INTEGER NOT NULL
)"""


@dataclass(frozen=True, slots=True)
class SampleUse:
    """Of one bundle: rounds have seen the samples up to the id `trained_through`, and gone over those `epochs` times.

    `withheld` of them sent nothing.
    """

    bundle: str = ""
    trained_through: int = 0
    epochs: float = 0.0
    withheld: int = 0


def read_use(connection: sqlite3.Connection, task: str) -> tuple[int, SampleUse]:
    """The row's number, 0 where there is none, and what it says."""
    query = "SELECT rowid, bundle, trained_through, epochs, withheld FROM sample_use WHERE task = ?"
    number, *fields = connection.execute(query, (task,)).fetchone() or (0,)
    return number, SampleUse(*fields)


def write_use(connection: sqlite3.Connection, task: str, use: SampleUse) -> None:
    """Store it, inside the transaction that is open. `withheld` are added to those of the same bundle."""
    connection.execute(
        "INSERT INTO sample_use VALUES (:task, :bundle, :trained_through, :epochs, :withheld)"
        " ON CONFLICT (task) DO UPDATE SET withheld = withheld * (bundle = :bundle) + :withheld, bundle = :bundle,"
        " trained_through = :trained_through, epochs = :epochs",
        {
            "task": task,
            "bundle": use.bundle,
            "trained_through": use.trained_through,
            "epochs": use.epochs,
            "withheld": use.withheld,
        },
    )
