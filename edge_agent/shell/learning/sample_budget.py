"""Charges each round of a task with privacy of samples to the samples that it trains on, before it begins.

A crash, a kill or a power cut behind that moment leaves the charge: what was told is never more than what is counted.
"""

import logging
from dataclasses import dataclass, field
from typing import Final

from edge_agent.core.budget_rules import SpentBudget, spent_budgets
from edge_agent.core.privacy_settings import PrivacySettings
from edge_agent.core.sample_ledger import Charge, Limit, limits_of, spent_through, spent_words
from edge_agent.shell.samples.sample_store import SampleStore
from edge_agent.shell.storage.device_database import DeviceDatabase
from edge_agent.worker.contract import Withheld
from fleet_host.log_lines import log_line
from fleet_protocol.privacy.renyi import StepsTaken, divergences_of, epsilon_of
from fleet_protocol.privacy.sample_privacy import SamplePrivacy
from fleet_protocol.task_description import TaskDescription

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ChargedRound:
    """Trains on samples behind the first id of `among`, up to the second; None: on all, and nothing is charged. Those
    whose own budget is spent, as `budgets` say, take part in no step.
    """

    among: tuple[int, int] | None = None
    charge: Charge | None = None
    budgets: list[SpentBudget] = field(default_factory=list)
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

    def told(self, task: str) -> float:
        """Epsilon, at the owner's delta, of the sample that rounds have told most of; 0 where they told nothing."""
        charges = self._database.charges(task)
        return epsilon_of(divergences_of(each.taken for each in charges), self._owner.delta) if charges else 0.0

    def charge(self, task: TaskDescription) -> ChargedRound | Withheld:
        """Commit what a round will tell of the samples that can bear it; or say that there are none.

        Raises:
            sqlite3.Error, OSError: the disk.
        """
        promised = task.sample_privacy
        if promised is None:
            return NO_CHARGE
        limits = limits_of(promised, self._owner)
        steps, newest = task.training.steps, self._samples.newest(task.task)
        if lost := self._database.lost_steps(task.task):
            self._database.charge_lost(task.task, Charge(newest, StepsTaken(promised.mechanism, lost)))
        charges = self._database.charges(task.task)
        spent = spent_through(charges, promised.mechanism, steps, limits)
        if newest <= spent:
            return Withheld("spent", spent_words(charges, newest, limits), newest, 0.0)
        budgets = self._spent_budgets(task, promised, charges)
        charge = Charge(newest, StepsTaken(promised.mechanism, steps))
        self._database.charge(task.task, charge)
        return ChargedRound((spent, newest), charge, budgets, self._owner.samples_alone)

    def _spent_budgets(
        self, task: TaskDescription, promised: SamplePrivacy, charges: list[Charge]
    ) -> list[SpentBudget]:
        """Those that some samples have by themselves; says where others rest than at the last round."""
        owner, steps = self._owner, task.training.steps

        def through(epsilon: float) -> int:
            return spent_through(charges, promised.mechanism, steps, [Limit(epsilon, owner.delta)])

        budgets = spent_budgets(owner.budgets, task.task, through)
        resting = self._samples.resting(task.task, budgets)
        if resting != self._resting.get(task.task, {}):
            for budget, count in resting.items():
                logger.info(log_line("samples_rest", task=task.task, budget=budget, count=count))
        self._resting[task.task] = resting
        return budgets

    def give_back(self, task: str, charged: ChargedRound) -> None:
        """A round that has made no step told nothing, not even by failing.

        Raises:
            sqlite3.Error, OSError: the disk.
        """
        if charged.charge is None:
            return
        taken = charged.charge.taken
        self._database.charge(task, Charge(charged.charge.newest, StepsTaken(taken.mechanism, -taken.steps)))
