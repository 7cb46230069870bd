"""The series of named readings on one device: each task has one, or one for each name that its sources give. Pure."""

from collections.abc import Callable, Mapping

from edge_agent.preparation.preparation import Preparation, PreparationState, SeriesStatus
from edge_agent.preparation.refusal import ReadingRefusedError
from fleet_protocol.bundle import TaskDescription
from fleet_protocol.reading_plan import ReadingPlan

SERIES_SEPARATOR = "/"
"""Between a task's name and that of a series."""

MAX_SERIES = 32
"""Over all tasks: programs at the sample socket may name any. Of those of an earlier run the oldest make room."""
MAX_SERIES_CHARACTERS = 64
"""Of a name."""


class SeriesOfReadings:
    """Each follows its task's plan, and begins again with another one. `states` are of the agent's last run."""

    def __init__(
        self, describe: Callable[[str], TaskDescription | None], states: Mapping[str, PreparationState] | None = None
    ) -> None:
        self._describe = describe
        self._states = dict(states or {})
        self._series: dict[str, Preparation] = {}
        self._bound_states()

    @property
    def states(self) -> dict[str, PreparationState]:
        """What each keeps over a restart, by its name."""
        return self._states | {name: series.state for name, series in self._series.items()}

    @property
    def status(self) -> dict[str, SeriesStatus]:
        """How far each is, those included that have got no reading since the agent's start."""
        before = {name: Preparation(state.plan, state).status for name, state in self._states.items()}
        return before | {name: series.status for name, series in self._series.items()}

    def of(self, task: str, name: str) -> Preparation:
        """The series of a task.

        Raises:
            ReadingRefusedError: the task has no named readings, or is not known yet; the name is too long, or there are
                too many series.
        """
        if len(name) > MAX_SERIES_CHARACTERS:
            words = f"series has {len(name)} characters; at most {MAX_SERIES_CHARACTERS} are taken"
            raise ReadingRefusedError("not_a_sample", words)
        plan = self._plan(task)
        key = f"{task}{SERIES_SEPARATOR}{name}" if name else task
        series = self._series.get(key)
        if series is None or (series.plan is not plan and series.plan != plan):
            if series is None and len(self._series) >= MAX_SERIES:
                remedy = "name fewer, and restart the agent"
                raise ReadingRefusedError("too_many", f"{MAX_SERIES} series of readings are kept; {remedy}")
            self._series[key] = series = Preparation(plan, self._states.pop(key, None))
            self._bound_states()
        return series

    def _bound_states(self) -> None:
        while self._states and len(self._states) + len(self._series) > MAX_SERIES:
            del self._states[next(iter(self._states))]

    def _plan(self, task: str) -> ReadingPlan:
        description = self._describe(task)
        if description is None:
            raise ReadingRefusedError(
                "task_unknown", f"the description of {task} has not come yet; readings count from when it is here"
            )
        if description.readings is None:
            raise ReadingRefusedError("not_a_sample", f"{task} takes no named readings; give inputs")
        return description.readings
