"""Which of the payloads in a buffer can't be applied. Pure."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from broker_coordinator.admission.consumer import AnyJournalledConsumer
from fleet_protocol.errors import ConfigurationError, ProtocolError, Reason
from fleet_protocol.task_description import TaskDescription

NOT_OF_ONE_PAYLOAD = (MemoryError, OSError, ConfigurationError)
"""What says nothing of the payload that it was raised for: the machine or the installation lacks something."""


def is_of_one_payload(error: Exception) -> bool:
    """Whether an error may be the payload's own. Another coordinator's key can't decrypt any of them."""
    if isinstance(error, ProtocolError):
        return error.reason is not Reason.WRONG_RECIPIENT
    return not isinstance(error, NOT_OF_ONE_PAYLOAD)


def culprits(
    consumer: AnyJournalledConsumer,
    state: Any,
    items: Sequence[Any],
    task: TaskDescription,
    check: Callable[[Any], object],
) -> dict[int, Exception]:
    """By place in `items`, those that can't be aggregated with the ones before them, each with its error.

    Partials add, so each item is added alone. `check` raises where the state that follows can't be used.

    Raises:
        Exception: an error that is not of one payload.
    """
    found: dict[int, Exception] = {}
    with np.errstate(all="ignore"):
        total = consumer.partial(state, [], task)
        for place, item in enumerate(items):
            try:
                longer = total + consumer.partial(state, [item], task)
                check(consumer.finish(state, longer, task))
            except Exception as error:
                if not is_of_one_payload(error):
                    raise
                found[place] = error
            else:
                total = longer
    return found
