"""The order of a series of readings in time: which comes too late, twice, or from a clock that was set back. Pure."""

import msgspec

from edge_agent.preparation.refusal import ReadingRefusedError

LATE_IN_ORDER = 3
"""So many readings in a row that are late but in order among themselves are a clock that was set back, not readings
that overtook one another."""


class Timeline(msgspec.Struct):
    """When the newest reading was taken, in seconds since 1970; `late` and `latest_late` are of those refused since."""

    newest: float | None = None
    late: int = 0
    latest_late: float = 0.0

    def check(self, at: float, *, is_arrival: bool) -> None:
        """Refuse a reading that is not after the newest one. `is_arrival`: the time is when it came, not what it says.

        Raises:
            ReadingRefusedError: `duplicate`, `late`, or `time_backwards`, with which the series begins again.
        """
        if self.newest is None or at > self.newest or (is_arrival and at == self.newest):
            return
        if at == self.newest:
            raise ReadingRefusedError("duplicate", f"a reading of {_moment(at)} has been taken; send each once")
        self.late = self.late + 1 if self.late and at > self.latest_late else 1
        self.latest_late = at
        newest = _moment(self.newest)
        if is_arrival or self.late >= LATE_IN_ORDER:
            self.newest, self.late = None, 0
            words = f"the clock went from {newest} back to {_moment(at)}; the series begins again with the next reading"
            raise ReadingRefusedError("time_backwards", words)
        raise ReadingRefusedError("late", f"it is of {_moment(at)}, behind one of {newest}; send readings in order")

    def move(self, at: float) -> None:
        """The newest reading is of this time."""
        self.newest, self.late = at, 0


def _moment(at: float) -> str:
    return f"{at:.3f} s"
