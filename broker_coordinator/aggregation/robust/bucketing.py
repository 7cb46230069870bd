"""Bucketing (Karimireddy, He & Jaggi 2022, algorithm 1): rules compare means of a few updates, drawn at random.

Devices that see different things differ less in the mean of some of them; a hostile device makes its bucket hostile.
What is drawn follows from the version's number, so that a replay draws the same. Of more buckets than are compared,
the first ones are: large fleets then take no longer, and about the same share of them is hostile.
"""

import hashlib
from typing import Final

import numpy as np

from broker_coordinator.aggregation.robust.stack import Change, Stack

MOST_COMPARED: Final = 256
"""Krum and its like look at all pairs of them."""


def in_buckets(stack: Stack, size: int, version: int) -> Stack:
    """The means of buckets of `size`, for the version after `version`; the last bucket may be smaller."""
    if size == 1 and len(stack) <= MOST_COMPARED:
        return stack
    drawn = sorted(range(len(stack)), key=lambda place: hashlib.sha256(f"{version}/{place}".encode()).digest())
    compared = drawn[: MOST_COMPARED * size]
    if size == 1:
        return stack.take(compared)
    buckets = [stack.take(compared[start : start + size]) for start in range(0, len(compared), size)]
    means = [bucket.mean() for bucket in buckets]
    sent = [np.unique(np.concatenate([change.indices for change in bucket.changes])) for bucket in buckets]
    return Stack([Change(places, mean[places]) for places, mean in zip(sent, means, strict=True)], stack.size)
