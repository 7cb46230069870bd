"""The last readings of a series, a step apart. Pure."""

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import chain

from edge_agent.preparation.refusal import ReadingRefusedError
from fleet_protocol.reading_plan import WindowPlan

Row = Sequence[float]
"""The inputs that one reading became."""


class Window:
    """Takes rows in the order of their times."""

    def __init__(self, plan: WindowPlan | None, rows: Iterable[Row] = ()) -> None:
        self._plan = plan
        self._rows: deque[Row] = deque(rows, maxlen=plan.readings if plan else 1)

    @property
    def rows(self) -> list[Row]:
        """Oldest first."""
        return list(self._rows)

    @property
    def length(self) -> int:
        """Of a full one."""
        return self._rows.maxlen or 1

    @property
    def values(self) -> list[float] | None:
        """All inputs, oldest reading first; None while it is not full."""
        return list(chain.from_iterable(self._rows)) if len(self._rows) == self.length else None

    def is_too_soon(self, passed: float) -> bool:
        """Whether a reading `passed` seconds after the newest one is less than half a step away from it."""
        return self._plan is not None and bool(self._rows) and passed < self._plan.step_seconds / 2

    def check(self, passed: float) -> None:
        """Refuse what is too soon.

        Raises:
            ReadingRefusedError: `too_soon`.
        """
        if self._plan and self.is_too_soon(passed):
            step = self._plan.step_seconds
            raise ReadingRefusedError(
                "too_soon", f"it comes {passed:.3g} s after the one before; the window takes one each {step:g} s"
            )

    def push(self, row: Row, passed: float) -> None:
        """Take a row in that comes `passed` seconds after the one before, behind whatever a gap asks for."""
        if self._plan and self._rows and passed > self._plan.gap_seconds:
            self._bridge(self._plan, passed)
        self._rows.append(row)

    def put(self, row: Row, passed: float) -> None:
        """The same for a reading that is asked about at any time: one that is too soon takes the newest one's place."""
        if self.is_too_soon(passed):
            self._rows.pop()
        self.push(row, passed)

    def clear(self) -> None:
        """Begin again."""
        self._rows.clear()

    def copy(self) -> "Window":
        """Another one with the same rows."""
        return Window(self._plan, self._rows)

    def _bridge(self, plan: WindowPlan, passed: float) -> None:
        missing = round(passed / plan.step_seconds) - 1 if passed < plan.step_seconds * plan.readings else plan.readings
        if plan.gap == "restart" or missing >= plan.readings:
            self._rows.clear()
        else:
            self._rows.extend([self._rows[-1]] * missing)
