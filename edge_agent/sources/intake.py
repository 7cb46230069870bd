"""The one way into the sample store, for every source: a sample is checked, stored, and announced. Pure.

What stores and what announces come in as arguments.
"""

from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.sources.schema_check import check_sample, check_task, check_unjudged
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.sample_line import Sample

StoreSample = Callable[[str, bytes, int | bytes], object]
"""(task, inputs, label), in the form that `check_sample` gives; raises `sqlite3.Error` where it can't."""


@dataclass(frozen=True, slots=True)
class SampleIntake:
    """Takes samples of `tasks`. `store_unjudged` has those of tasks that `describe` does not know yet."""

    tasks: frozenset[str]
    store: StoreSample
    store_unjudged: Callable[[Sample], None]
    describe: Callable[[str], TaskDescription | None]
    arrived: Callable[[str], None]

    def take(self, sample: Sample) -> None:
        """Store a sample, and say that it has come.

        Raises:
            ValueError: it does not fit its task, or the device does not take part in that.
            sqlite3.Error: it can't be stored.
        """
        check_task(sample.task, self.tasks)
        description = self.describe(sample.task)
        if description is None:
            check_unjudged(sample)
            self.store_unjudged(sample)
        else:
            self.store(sample.task, *check_sample(sample, description))
        self.arrived(sample.task)
