"""What rounds of tasks with privacy of samples were charged with: three tables of agent.db, which go together.

`sample_steps` has the charges, `told_samples` what they add up to for the sample that was told most of, and a counter
of all steps says where damage has taken some.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace

from edge_agent.core.sample_ledger import Charge
from edge_agent.shell.storage.counters import Counters, transaction
from edge_agent.shell.storage.row_seals import RowSeals
from edge_agent.shell.storage.sample_steps import add_charge, read_charges
from edge_agent.shell.storage.told_samples import WITHOUT_NOISE, Told, read_told, told_of, write_told
from fleet_protocol.privacy.renyi import Divergences, StepsTaken


class SampleCharges:
    """Of all tasks of a device."""

    def __init__(self, connection: sqlite3.Connection, seals: RowSeals, counters: Counters) -> None:
        self._connection, self._seals, self._counters = connection, seals, counters

    def of(self, task: str) -> list[Charge]:
        """What rounds were charged to the task's samples."""
        rows = read_charges(self._connection, task)
        return [charge for number, charge in rows if self._seals.is_sound("sample_steps", number)]

    def add(self, task: str, charge: Charge, behind: int) -> None:
        """Commit what a round on samples behind an id will take, before it begins."""
        with transaction(self._connection):
            charges = self.of(task)
            told = self._told(task, charges).after(charges, charge.taken.mechanism, behind)
            write_told(self._connection, task, told)
            self._add_steps(task, charge, charges)

    def give_back(self, task: str, charge: Charge) -> None:
        """Commit that the last round has taken nothing of what it was charged with."""
        taken = charge.taken
        with transaction(self._connection):
            self._add_steps(task, replace(charge, taken=replace(taken, steps=-taken.steps)), self.of(task))

    def told_of_most(self, task: str) -> Divergences:
        """What rounds have told of the sample that they have told most of."""
        charges = self.of(task)
        return self._told(task, charges).of_most(charges)

    def lost_steps(self, task: str) -> StepsTaken | None:
        """Those that were charged, and that damage has taken from what `of` gives: as steps of which none can have told
        more. None where none are lost.
        """
        charges = self.of(task)
        lost = self._counters[_steps_of(task)] - _steps_in(charges)
        return StepsTaken(self._told(task, charges).worst, lost) if lost > 0 else None

    def add_lost(self, task: str, charge: Charge) -> None:
        """Commit in place of steps that were charged once, and are lost."""
        with transaction(self._connection):
            add_charge(self._connection, task, charge)

    def _add_steps(self, task: str, charge: Charge, charges: Iterable[Charge]) -> None:
        add_charge(self._connection, task, charge)
        self._counters.add(_steps_of(task), charge.taken.steps, known=_steps_in(charges))

    def _told(self, task: str, charges: Sequence[Charge]) -> Told:
        number, told = read_told(self._connection, task)
        if told is not None and self._seals.is_sound("told_samples", number):
            return told
        known = told_of(charges)
        return known if self._counters[_steps_of(task)] <= _steps_in(charges) else replace(known, worst=WITHOUT_NOISE)


def _steps_in(charges: Iterable[Charge]) -> int:
    return sum(charge.taken.steps for charge in charges)


def _steps_of(task: str) -> str:
    """The counter of all noised steps that rounds of a task were charged for."""
    return f"sample_steps.{task}"
