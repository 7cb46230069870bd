"""Budgets of a device's own samples: which ones have one, by name or by label, and which of these are spent. Pure.

A spent sample takes part in no step, and counts all the same: the number of samples, which is no secret, so tells
nothing of who has which budget (docs/decisions/budgets-of-samples.md).
"""

from collections.abc import Callable, Iterable
from typing import Annotated, Final

import msgspec

from fleet_protocol.configuration import Name
from fleet_protocol.privacy.sample_privacy import Epsilon
from fleet_protocol.task_description import TaskDescription

MAX_LABEL: Final = 2**31 - 1


class BudgetRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A budget of some samples, below that of all (docs/privacy.md). Of several that fit a sample, each holds."""

    name: Name
    """What sources, and programs at the sample socket, call it by."""
    epsilon: Epsilon
    """The most that all rounds of one task together may tell of such a sample, at `delta` of `[privacy]`."""
    task: Name | None = None
    """With `labels`: the task that they are labels of."""
    labels: list[Annotated[int, msgspec.Meta(ge=0, le=MAX_LABEL)]] = []
    """Classes whose samples have this budget, whoever has sent them."""

    def __post_init__(self) -> None:
        """Refuse labels of no task; raises ValueError."""
        if bool(self.labels) != (self.task is not None):
            raise ValueError(f"budgets: {self.name!r} needs both task and labels, or neither; write the other one")

    def labels_of(self, task: str) -> list[int]:
        """The classes of a task that have it."""
        return self.labels if self.task == task else []

    def refusal(self, task: TaskDescription) -> str | None:
        """Why its labels are none of the task's, in words; None where they are, or it has none of this task."""
        wanted = self.labels_of(task.task)
        classes = task.label.classes if task.label.is_index else 0
        if all(0 <= label < classes for label in wanted):
            return None
        found = f"has the classes 0 to {classes - 1}" if classes else "has no classes"
        return (
            f"{task.task} {found}, and the budget {self.name!r} in [privacy] of agent.toml is for its labels {wanted};"
            " correct labels there, or leave them out"
        )


class SpentBudget(msgspec.Struct, frozen=True):
    """One rule as a round finds it: samples that are `named` by it or have one of `labels` take part in no step up to
    the id `through`.
    """

    name: str
    labels: list[int]
    through: int

    def rests(self, sample: int, named: str, label: int | None) -> bool:
        """Whether a sample with this id takes no part."""
        return sample <= self.through and (named == self.name or label in self.labels)


def spent_budgets(rules: Iterable[BudgetRule], task: str, through: Callable[[float], int]) -> list[SpentBudget]:
    """Each rule for a round of a task; `through` gives the id up to which an epsilon can't bear it."""
    return [SpentBudget(rule.name, rule.labels_of(task), through(rule.epsilon)) for rule in rules]


def rests(budgets: Iterable[SpentBudget], sample: int, named: str, label: int | None) -> bool:
    """Whether one of its budgets keeps a sample from a round; so does a name that no budget has any more."""
    budgets = list(budgets)
    is_lost = bool(named) and all(budget.name != named for budget in budgets)
    return is_lost or any(budget.rests(sample, named, label) for budget in budgets)
