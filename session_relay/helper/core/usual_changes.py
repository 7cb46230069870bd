"""Whether a step changes a block far more than steps usually do. Pure."""

from collections import deque
from statistics import median
from typing import Final

REMEMBERED: Final = 64
FEWEST: Final = 16
"""Steps before what is usual is known."""
MOST_TIMES: Final = 50.0
"""The usual change. Those of honest steps lie within a few times their median, and within twenty while momentum
gathers."""


class UsualChanges:
    """Euclidean norms of the changes that the last steps have made of a block, as if none of them had been stale.

    Usual is the largest median that they have had: where one device has learned all it can its steps are tiny, and
    the first ones of another are as large as its own were.
    """

    def __init__(self, largest: float) -> None:
        """`largest` is the norm that no step may pass."""
        self._largest = largest
        self._norms = deque[float](maxlen=REMEMBERED)
        self._usual = 0.0

    def why_refused(self, norm: float) -> str:
        """Why a change of this norm is not made; empty where it is. NaN is refused."""
        if not norm <= self._largest:
            return f"changes it by {norm:.4g}, at most {self._largest:.4g} is taken"
        if norm > (limit := MOST_TIMES * self._usual) > 0:
            return f"changes it by {norm:.4g}, {MOST_TIMES:g} times the usual change is {limit:.4g}"
        return ""

    def count(self, norm: float) -> None:
        """A change of this norm was made."""
        self._norms.append(norm)
        if len(self._norms) >= FEWEST:
            self._usual = max(self._usual, median(self._norms))
