"""Waits that grow while rounds from one version fail, and end with another version. Pure.

Times are seconds on any clock that only grows.
"""

from dataclasses import dataclass

from edge_agent.core.version_choice import KnownVersion

FIRST_WAIT_SECONDS = 60.0
LAST_WAIT_SECONDS = 6 * 3600.0
"""Doubles from first to last. A graph that loops for ever costs its time limit, each time again: four a day at last."""


@dataclass(slots=True)
class Wait:
    """Until then, nothing is trained from a version that has failed."""

    version: KnownVersion
    seconds: float
    until: float


class GrowingWaits:
    """For each task, how long nothing is trained from a version that has failed."""

    __slots__ = ("_waits",)

    def __init__(self) -> None:
        self._waits: dict[str, Wait] = {}

    def fail(self, task: str, version: KnownVersion, now: float) -> float:
        """It has failed again; returns the seconds to wait."""
        last = self._waits.get(task)
        again = last is not None and last.version == version
        seconds = min(2 * last.seconds, LAST_WAIT_SECONDS) if last and again else FIRST_WAIT_SECONDS
        self._waits[task] = Wait(version, seconds, now + seconds)
        return seconds

    def succeed(self, task: str) -> None:
        """The next wait is a short one."""
        self._waits.pop(task, None)

    def holds(self, task: str, version: KnownVersion | None, now: float) -> bool:
        """Whether the task still waits; not for a version other than the one that failed."""
        wait = self._waits.get(task)
        return wait is not None and wait.version == version and now < wait.until

    def any_for(self, task: str) -> bool:
        """Whether the next wait may be longer than the first."""
        return task in self._waits
