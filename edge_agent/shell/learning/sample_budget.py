"""Charges each round of a task with privacy of samples to the samples that it trains on, before it begins.

A crash, a kill or a power cut behind that moment leaves the charge: what was told is never more than what is counted.
"""

import logging
import math
from dataclasses import dataclass, field
from typing import Final

from edge_agent.core.budget_rules import SpentBudget, spent_budgets
from edge_agent.core.noise_choice import RoundCount
from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.core.sample_ledger import Charge, Limit, spent_through
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.worker.contract import Withheld
from fleet_host.log_lines import log_line
from fleet_protocol.privacy.renyi import epsilon_of
from fleet_protocol.task_description import TaskDescription

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChargedRound:
    """Trains on samples behind the first id of `among`, up to the second; None: on all, and nothing is charged. Those
    whose own budget is spent, as `budgets` say, take part in no step. `description` is the task with the noise that
    this device adds; None where the task promises none.
    """

    among: tuple[int, int] | None = None
    charge: Charge | None = None
    budgets: list[SpentBudget] = field(default_factory=list)
    description: TaskDescription | None = None
    samples_alone: bool = False


NO_CHARGE: Final = ChargedRound()


class SampleBudget:
    """What the rounds of this device may still tell of its samples."""

    def __init__(self, database: DeviceDatabase, samples: SampleStore, owner: PrivacySettings) -> None:
        self._database = database
        self._samples = samples
        self._owner = owner
        self._resting: dict[str, dict[str, int]] = {}

    @property
    def resting(self) -> dict[str, dict[str, int]]:
        """By task, and the name of their budget, the samples that took part in no step of the last round."""
        return {task: counts for task, counts in self._resting.items() if counts}

    def refusal(self, task: TaskDescription) -> str | None:
        """Why the owner does not let this device learn for the task, in words; None where it may."""
        return self._owner.refusal(task)

    def told(self, task: str) -> float | None:
        """Epsilon, at the owner's delta, of the sample that rounds have told most of; 0 where they told nothing, None
        where no epsilon bounds it: some were without noise, or may have been.
        """
        most = self._database.sample_charges.told_of_most(task)
        told = epsilon_of(most, self._owner.delta) if any(most) else 0.0
        return told if told < math.inf else None

    def charge(self, task: TaskDescription) -> ChargedRound | Withheld:
        """Commit what a round will tell of the samples that can bear it; or say that there are none.

        Raises:
            sqlite3.Error, OSError: the disk.
        """
        count = RoundCount.of(task, self._owner)
        if count is None:
            return NO_CHARGE
        newest = self._samples.newest(task.task)
        if lost := self._database.sample_charges.lost_steps(task.task):
            self._database.sample_charges.add_lost(task.task, Charge(newest, lost))
        charges = self._database.sample_charges.of(task.task)
        spent = count.spent_through(charges)
        if newest <= spent or (spent and not self._samples.has_first_after(task.task, spent)):
            return Withheld("spent", count.spent_words(charges, newest), newest, 0.0)
        budgets = self._spent_budgets(task.task, count, charges)
        charge = Charge(newest, count.round)
        self._database.sample_charges.add(task.task, charge, spent)
        return ChargedRound((spent, newest), charge, budgets, count.described(task), self._owner.samples_alone)

    def _spent_budgets(self, task: str, count: RoundCount, charges: list[Charge]) -> list[SpentBudget]:
        """Those that some samples have by themselves; says where others rest than at the last round."""

        def through(epsilon: float) -> int:
            limits = [Limit(epsilon, self._owner.delta)]
            return spent_through(charges, count.chosen.mechanism, count.steps, limits)

        budgets = spent_budgets(self._owner.budgets, task, through)
        resting = self._samples.resting(task, budgets)
        if resting != self._resting.get(task, {}):
            for budget, number in resting.items():
                logger.info(log_line("samples_rest", task=task, budget=budget, count=number))
        self._resting[task] = resting
        return budgets

    def give_back(self, task: str, charged: ChargedRound) -> None:
        """A round that has made no step told nothing, not even by failing.

        Raises:
            sqlite3.Error, OSError: the disk.
        """
        if charged.charge is None:
            return
        self._database.sample_charges.give_back(task, charged.charge)
