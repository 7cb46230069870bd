"""Replay: after each of the next versions that devices' updates make, train on the synthetic data, and publish again.

Without it, a few rounds of devices with few classes each make a model forget what it had learned of the others.
"""

import threading
from collections.abc import Callable
from typing import Final

from broker_coordinator.aggregation.version import Version
from broker_coordinator.storage.journal import Journal

LOOK_SECONDS: Final = 1.0
"""Between two looks at whether devices have made a version."""

Publish = Callable[[], Version]


def replay(
    journal: Journal, task: str, after: int, replays: int, *, publish: Publish, stopping: threading.Event
) -> list[int]:
    """`publish` a version behind each of the next `replays` versions that follow `after`; returns their numbers. Ends
    early when `stopping` is set.

    Raises:
        ConfigurationError: from `publish`.
        JournalUnavailableError: the database failed.
    """
    made: list[int] = []
    while len(made) < replays and not stopping.is_set():
        if journal.newest_number(task) > after:
            after = publish().number
            made.append(after)
        else:
            stopping.wait(LOOK_SECONDS)
    return made
