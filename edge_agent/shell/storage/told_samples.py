"""What rounds have told of a task's samples in all: a table of agent.db beside the steps that each was charged with."""

import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from edge_agent.core.sample_ledger import Charge, cost_of_sample
from fleet_protocol.privacy.renyi import ORDERS, Divergences, Mechanism

TABLE: Final = """CREATE TABLE IF NOT EXISTS told_samples (
    task TEXT PRIMARY KEY, noise REAL NOT NULL, rate REAL NOT NULL, behind INTEGER NOT NULL, most BLOB NOT NULL
)"""

WITHOUT_NOISE: Final = Mechanism(0.0, 1.0)
"""What steps may have been of which nothing is known."""


@dataclass(frozen=True, slots=True)
class Told:
    """No step told more than one of `worst`: none had less noise, or a larger rate. Before the last round, which was on
    samples behind the id `behind`, of no sample more was told than `most`, at each order.
    """

    worst: Mechanism
    behind: int
    most: Divergences

    def of_most(self, charges: Iterable[Charge]) -> Divergences:
        """What was told of the sample that most was told of, at each order, the last round included."""
        return _larger(self.most, cost_of_sample(charges, self.behind + 1))

    def after(self, charges: Iterable[Charge], mechanism: Mechanism, behind: int) -> "Told":
        """As the next round begins, with steps of `mechanism` on samples behind an id."""
        return Told(_worst([self.worst, mechanism]), behind, self.of_most(charges))


def told_of(charges: Sequence[Charge]) -> Told:
    """Where nothing is stored: none of the `charges` is lost, and each may have been to the same sample."""
    worst = _worst([charge.taken.mechanism for charge in charges]) if charges else Mechanism(float("inf"), 0.0)
    return Told(worst, 0, cost_of_sample(charges, 0))


def read_told(connection: sqlite3.Connection, task: str) -> tuple[int, Told | None]:
    """The number of the task's row, 0 without one, and what it says; None where it has other orders."""
    query = "SELECT rowid, noise, rate, behind, most FROM told_samples WHERE task = ?"
    row = connection.execute(query, (task,)).fetchone()
    if row is None:
        return 0, None
    number, noise, rate, behind, most = row
    if not isinstance(most, bytes) or len(most) != len(ORDERS) * array("d").itemsize:
        return number, None
    return number, Told(Mechanism(noise, rate), behind, tuple(array("d", most)))


def write_told(connection: sqlite3.Connection, task: str, told: Told) -> None:
    """Store it, inside the transaction that is open."""
    worst = told.worst
    row = (task, worst.noise_multiplier, worst.sampling_rate, told.behind, array("d", told.most).tobytes())
    connection.execute("INSERT OR REPLACE INTO told_samples VALUES (?, ?, ?, ?, ?)", row)


def _worst(mechanisms: Iterable[Mechanism]) -> Mechanism:
    several = list(mechanisms)
    return Mechanism(min(one.noise_multiplier for one in several), max(one.sampling_rate for one in several))


def _larger(one: Divergences, other: Divergences) -> Divergences:
    return tuple(max(pair) for pair in zip(one, other, strict=True))
