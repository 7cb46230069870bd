"""What came of the readings of one source: how many were taken, and how many were refused for which reason. Pure."""

from collections import Counter

import msgspec

from edge_agent.preparation.refusal import Reason

MAX_WORDS = 300
"""Characters that are kept of the last refusal: it may quote what was sent."""


class SourceStatus(msgspec.Struct, frozen=True):
    """One source since the agent's start. `last_refusal` and `failure` are in words, empty where there was none."""

    source: str
    task: str
    taken: int
    refused: dict[str, int]
    last_refusal: str
    failure: str


class SourceTally:
    """Counts for one source."""

    def __init__(self, source: str, task: str) -> None:
        self._source = source
        self._task = task
        self._taken = 0
        self._refused: Counter[str] = Counter()
        self._last_refusal = ""
        self.failure = ""
        """Why the source itself does not run now; empty while it does."""

    def take(self) -> None:
        """One reading has become a sample."""
        self._taken += 1

    def refuse(self, reason: Reason, words: str) -> None:
        """One reading has not; `words` say what was wrong with it, and what to do."""
        self._refused[reason] += 1
        self._last_refusal = f"{reason}: {words}"[:MAX_WORDS]

    @property
    def status(self) -> SourceStatus:
        """For people and programs on the device."""
        return SourceStatus(
            self._source, self._task, self._taken, dict(self._refused), self._last_refusal, self.failure[:MAX_WORDS]
        )
