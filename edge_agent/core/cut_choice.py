"""Which blocks of a model a device trains itself, and which it leaves to a helper. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from edge_agent.core.split_settings import NEVER, WHOLE_BY_MEMORY, SplitSettings
from fleet_protocol.errors import ConfigurationError
from fleet_protocol.split_plan import WHOLE, Cut, SplitPlan
from fleet_protocol.split_step_costs import step_walk
from fleet_protocol.task_description import TaskDescription

MemoryBytes = Callable[[TaskDescription, Cut], int]
"""What the worker of this device needs in a round with a cut (`fleet_protocol.split_costs`)."""


@dataclass(slots=True)
class CutChoice:
    """The cut of each round, for the tasks in `settings`. What a round has found too large is not tried again, until
    the task is published anew.
    """

    settings: Mapping[str, SplitSettings]
    limit_bytes: int
    memory_bytes: MemoryBytes
    _too_large: dict[str, tuple[TaskDescription, set[str]]] = field(default_factory=dict)
    """By task, as it was described then: the names of cuts."""

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
            return _owners_cut(task, task.split, wanted)
        cuts = [WHOLE, *sorted(task.split.cuts, key=partial(_bytes_sent, task))]
        untried = [cut for cut in cuts if not self._is_too_large(task, cut)] or [WHOLE]
        needs = {cut.name: self.memory_bytes(task, cut) for cut in untried}
        fitting = (cut for cut in untried if needs[cut.name] <= self.limit_bytes)
        return next(fitting, min(untried, key=lambda cut: needs[cut.name]))

    def note_too_large(self, task: TaskDescription, cut: Cut) -> bool:
        """A round with this cut ran out of memory. Returns whether there is another to try."""
        if self._too_large_of(task) is None:
            self._too_large[task.task] = task, set()
        self._too_large[task.task][1].add(cut.name)
        return not self._is_too_large(task, self.of(task))

    def _is_too_large(self, task: TaskDescription, cut: Cut) -> bool:
        return cut.name in (self._too_large_of(task) or ())

    def _too_large_of(self, task: TaskDescription) -> set[str] | None:
        """None where nothing has been found of the task as it is now: it may have been published with other blocks."""
        described, names = self._too_large.get(task.task, (None, None))
        return names if described == task else None


def _owners_cut(task: TaskDescription, plan: SplitPlan, wanted: str) -> Cut:
    try:
        return plan.cut(wanted)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"agent.toml: split of task {task.task}: {error}; write one of these, or {WHOLE_BY_MEMORY!r} or {NEVER!r}"
        ) from error


def _bytes_sent(task: TaskDescription, cut: Cut) -> int:
    """Both ways, in a step."""
    walk = step_walk(task, cut)
    return walk.up_bytes + walk.down_bytes
