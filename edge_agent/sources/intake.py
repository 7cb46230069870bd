"""The one way into the sample store, for every source: a sample is checked, stored, and announced. Pure.

What stores and what announces come in as arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.sources.schema_check import check_budget, check_sample, check_task, check_unjudged
from fleet_protocol.sample_line import Sample
from fleet_protocol.task_description import TaskDescription

StoreSample = Callable[[str, bytes, int | bytes, str], int]
"""(task, inputs, label, budget), the first in the form that `check_sample` gives; its number, 0 where the store is full
and keeps others.

Raises `ValueError` for a sample that is too large, `sqlite3.Error` where it can't be stored.
"""


@dataclass(frozen=True, slots=True)
class SampleIntake:
    """Takes samples of `tasks`. `store_unjudged` has those of tasks that `describe` does not know yet; `judge` takes in
    those that waited, before the next one is stored: samples keep their order. `budgets` are those that a sample may
    name.
    """

    tasks: frozenset[str]
    store: StoreSample
    store_unjudged: Callable[[Sample], None]
    describe: Callable[[str], TaskDescription | None]
    arrived: Callable[[str], None]
    judge: Callable[[TaskDescription], object] = lambda _description: None
    budgets: frozenset[str] = frozenset()

    def take(self, sample: Sample) -> None:
        """Store a sample, and say that it has come, where it is kept.

        Raises:
            ValueError: it does not fit its task, or the device does not take part in that.
            sqlite3.Error: it can't be stored.
        """
        check_task(sample.task, self.tasks)
        check_budget(sample.budget, self.budgets)
        description = self.describe(sample.task)
        if description is None:
            check_unjudged(sample)
            self.store_unjudged(sample)
        else:
            inputs, label = check_sample(sample, description)
            self.judge(description)
            if not self.store(sample.task, inputs, label, sample.budget):
                return
        self.arrived(sample.task)
