"""When a retained message is published, and published again. Pure: times are seconds on any one clock."""

from collections.abc import Iterable

REPEAT_SECONDS = 5.0
"""None is repeated more often than this, however many devices come: all of them hear it."""


class Announcements:
    """Which messages are to be published, by their names: a manifest by its task."""

    def __init__(self) -> None:
        self._now: dict[str, None] = {}
        self._later: dict[str, float] = {}
        self._announced_at: dict[str, float] = {}

    def announce(self, name: str) -> None:
        """Publish it next: there is something new in it, or the broker may have lost it."""
        self._now[name] = None

    def repeat(self, names: Iterable[str], now: float) -> None:
        """Publish them again, for somebody who has just come: at once, or `REPEAT_SECONDS` after the last time.

        What was published before somebody came did not reach it, where the retained message is lost or replaced.
        """
        for name in names:
            earliest = self._announced_at.get(name, now - REPEAT_SECONDS) + REPEAT_SECONDS
            self._later.setdefault(name, max(now, earliest))

    def next_name(self, now: float) -> str | None:
        """The one to publish now, or None; it stays until `done`."""
        for name in [name for name, due in self._later.items() if due <= now]:
            self._now.setdefault(name, None)
            del self._later[name]
        return next(reversed(self._now), None)

    def done(self, name: str, now: float) -> None:
        """It was published."""
        del self._now[name]
        self._later.pop(name, None)
        self._announced_at[name] = now

    def next_due(self) -> float | None:
        """When a repetition is due, or None."""
        return min(self._later.values(), default=None)
