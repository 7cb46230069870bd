"""When the manifest of each task is published, and published again. Pure: times are seconds on any one clock."""

from collections.abc import Iterable

REPEAT_SECONDS = 5.0
"""A task's manifest is repeated no more often than this, however many devices come: all of them hear it."""


class Announcements:
    """Which tasks' manifests are to be published."""

    def __init__(self) -> None:
        self._now: dict[str, None] = {}
        self._later: dict[str, float] = {}
        self._announced_at: dict[str, float] = {}

    def announce(self, task: str) -> None:
        """Publish it next: there is something new in it, or the broker may have lost it."""
        self._now[task] = None

    def repeat(self, tasks: Iterable[str], now: float) -> None:
        """Publish them again, for somebody who has just come: at once, or `REPEAT_SECONDS` after the last time.

        What was published before somebody came did not reach it, where the retained message is lost or replaced.
        """
        for task in tasks:
            earliest = self._announced_at.get(task, now - REPEAT_SECONDS) + REPEAT_SECONDS
            self._later.setdefault(task, max(now, earliest))

    def next_task(self, now: float) -> str | None:
        """The one to publish now, or None; it stays until `done`."""
        for task in [task for task, due in self._later.items() if due <= now]:
            self._now.setdefault(task, None)
            del self._later[task]
        return next(reversed(self._now), None)

    def done(self, task: str, now: float) -> None:
        """It was published."""
        del self._now[task]
        self._later.pop(task, None)
        self._announced_at[task] = now

    def next_due(self) -> float | None:
        """When a repetition is due, or None."""
        return min(self._later.values(), default=None)
