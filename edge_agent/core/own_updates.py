"""Whether the newest version may hold what this device has learned last. Pure.

Who begins again before that trains from weights that lack its last round, and what it then sends is older by a round:
docs/decisions/own-update-first.md
"""

from dataclasses import dataclass

from edge_agent.core.version_choice import KnownVersion, is_new_to

LEAST_SECONDS = 10.0
"""That a device waits for its last update, where its rounds are shorter than that."""


@dataclass(slots=True)
class _Sent:
    """An update that was put into the outbox; nothing waits for it from `until` on. `before` is the newest version that
    was known when its receipt came, None until then.
    """

    until: float
    before: KnownVersion | None = None


class OwnUpdates:
    """The last one of each task. Times are in seconds on any one clock.

    A version that was made after the receipt has the update, or the next one will, as updates go in their order. The
    wait is no longer than the round was: else a device would wait for slower ones.
    """

    def __init__(self) -> None:
        self._last: dict[str, _Sent] = {}

    def sent(self, task: str, now: float, round_seconds: float) -> None:
        """A round that took so long has left an update in the outbox."""
        self._last[task] = _Sent(now + max(LEAST_SECONDS, round_seconds))

    def accepted(self, task: str, newest: KnownVersion | None) -> None:
        """It has its receipt; `newest` is the newest version that a manifest has named."""
        if newest is None:
            self._last.pop(task, None)
        elif last := self._last.get(task):
            last.before = newest

    def refused(self, task: str) -> None:
        """It will be in no version."""
        self._last.pop(task, None)

    def waits_until(self, task: str, newest: KnownVersion, now: float) -> float | None:
        """Until when a later version than `newest` is waited for, as that has not the last update; None: it may."""
        last = self._last.get(task)
        if last is None or now >= last.until or (last.before is not None and is_new_to(last.before, newest)):
            return None
        return last.until
