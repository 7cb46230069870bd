"""Which blocks of a model a device trains itself, and which it leaves to a helper. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from edge_agent.core.split_settings import NEVER, WHOLE_BY_MEMORY, SplitSettings
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.split_costs import bytes_of_step
from fleet_protocol.split_plan import WHOLE, Cut, SplitPlan

MemoryBytes = Callable[[TaskDescription, Cut], int]
"""What the worker of this device needs in a round with a cut (`fleet_protocol.split_costs`)."""


@dataclass(slots=True)
class CutChoice:
    """The cut of each round, for the tasks in `settings`. What a round has found too large is not tried again."""

    settings: Mapping[str, SplitSettings]
    limit_bytes: int
    memory_bytes: MemoryBytes
    _too_large: set[tuple[str, str]] = field(default_factory=set)
    """Tasks, and the names of their cuts."""

    def of(self, task: TaskDescription) -> Cut:
        """The cut of the next round; `WHOLE` where the device trains alone. The estimate is rather above than below, so
        where none fits, the one that needs least is tried.

        Raises:
            ConfigurationError: the settings name a cut that the task does not have.
        """
        wanted = self.settings[task.task].cut
        if task.split is None or wanted == NEVER:
            return WHOLE
        if wanted != WHOLE_BY_MEMORY:
            return task.split.cut(wanted)
        cuts = [WHOLE, *sorted(task.split.cuts, key=partial(_bytes_sent, task.split, task.training.batch_size))]
        untried = [cut for cut in cuts if not self._is_too_large(task, cut)] or [WHOLE]
        needs = {cut.name: self.memory_bytes(task, cut) for cut in untried}
        fitting = (cut for cut in untried if needs[cut.name] <= self.limit_bytes)
        return next(fitting, min(untried, key=lambda cut: needs[cut.name]))

    def note_too_large(self, task: TaskDescription, cut: Cut) -> bool:
        """A round with this cut ran out of memory. Returns whether there is another to try."""
        self._too_large.add((task.task, cut.name))
        return not self._is_too_large(task, self.of(task))

    def _is_too_large(self, task: TaskDescription, cut: Cut) -> bool:
        return (task.task, cut.name) in self._too_large


def _bytes_sent(plan: SplitPlan, rows: int, cut: Cut) -> int:
    """Both ways, in a step."""
    return sum(bytes_of_step(plan, cut, rows))
