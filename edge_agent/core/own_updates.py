"""Whether the newest version may hold what this device has learned last. Pure.

Who begins again before that trains from weights that lack its last round, and what it then sends is older by a round:
docs/decisions/own-update-first.md
"""

from dataclasses import dataclass

from edge_agent.core.delivery import Remedy
from edge_agent.core.outbox import OutboxRow
from edge_agent.core.version_choice import KnownVersion, is_new_to, is_same_line

LEAST_SECONDS = 10.0
"""That a device waits for its last update, where its rounds are shorter than that."""


@dataclass(slots=True)
class _Sent:
    """What a round from `trained_from` has put into the outbox, under numbers above `behind`; nothing waits for it from
    `until` on. `before` is the newest version that was known when its receipt came, None until then.
    """

    trained_from: KnownVersion
    behind: int
    until: float
    before: KnownVersion | None = None


class OwnUpdates:
    """The last one of each task. Times are in seconds on any one clock.

    A version that was made after the receipt has the update, or the next one will, as updates go in their order. The
    wait is no longer than the round was: else a device would wait for slower ones.
    """

    def __init__(self) -> None:
        self._last: dict[str, _Sent] = {}

    def sent(self, task: str, trained_from: KnownVersion, behind: int, now: float, round_seconds: float) -> None:
        """A round that took so long has left an update in the outbox; `behind` is the highest number before it."""
        self._last[task] = _Sent(trained_from, behind, now + max(LEAST_SECONDS, round_seconds))

    def answered(self, row: OutboxRow, meant: Remedy, newest: KnownVersion | None) -> None:
        """A payload has a receipt; `newest` is the newest version that a manifest has named. Receipts for what earlier
        rounds sent say nothing of the last one, nor does one that leaves the payload in the outbox.
        """
        last = self._last.get(row.task)
        if last is None or row.sequence <= last.behind:
            return
        if meant is Remedy.TAKE_BACK or (meant is Remedy.SETTLE and newest is None):
            del self._last[row.task]
        elif meant is Remedy.SETTLE:
            last.before = newest

    def waits_until(self, task: str, newest: KnownVersion, now: float) -> float | None:
        """Until when a later version than `newest` is waited for, as that has not the last update; None: it may have,
        or none will, as another bundle or generation has begun.
        """
        last = self._last.get(task)
        if last is None or now >= last.until or not is_same_line(last.trained_from, newest):
            return None
        return None if last.before is not None and is_new_to(last.before, newest) else last.until

    def is_settled(self, task: str) -> bool:
        """Whether nothing is waited for."""
        return task not in self._last
