"""Journalled payloads on their way into an aggregate, and the hand-over of decoded ones that spares reading them."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

MAX_HANDED_OVER = 2_000
"""Two batches: what is committed is aggregated, or waits decoded, before the next batch but one."""


class WaitingPayload(msgspec.Struct, frozen=True, gc=False):
    """`facts` and `item` are as the kind's consumer has made them. `suspicion`: it waits although it is suspicious, and
    why it is; else empty.
    """

    position: int
    device: str
    staleness: int
    facts: Any
    item: Any
    suspicion: str = ""


Placed = tuple[str, int, WaitingPayload]
"""A payload with its task and the number of its kind."""


class DecodedBatch(msgspec.Struct, frozen=True):
    """All payloads that were accepted behind the position `after` and up to the position `through`."""

    after: int
    through: int
    payloads: Sequence[Placed]


class DecodedBatches:
    """What was decoded to be admitted, so as not to read and decode it again. It may forget any of it.

    `maximum` is of payloads.
    """

    def __init__(self, maximum: int = MAX_HANDED_OVER) -> None:
        self._maximum = maximum
        self._size = 0
        self._batches: deque[DecodedBatch] = deque()

    def keep(self, batch: DecodedBatch) -> None:
        """Keep a batch, in place of those that were kept longest where there are too many payloads."""
        self._batches.append(batch)
        self._size += len(batch.payloads)
        while self._size > self._maximum:
            self._pop()

    def forget(self) -> None:
        """Forget all: nobody here makes versions of it."""
        self._batches.clear()
        self._size = 0

    def take(self, after: int) -> DecodedBatch:
        """Hand over all that is known to follow the position `after` without a gap. Nothing is kept of it, nor of what
        came before.
        """
        through = after
        payloads: list[Placed] = []
        while self._batches and self._batches[0].after <= through:
            batch = self._pop()
            if batch.after == through:
                through = batch.through
                payloads += batch.payloads
        return DecodedBatch(after, through, payloads)

    def take_through(self, last: int) -> dict[int, Placed]:
        """Hand over what is known up to the position `last`, by position, whatever others have journalled between.
        Nothing is kept of it.
        """
        known: dict[int, Placed] = {}
        while self._batches and self._batches[0].through <= last:
            known |= {placed[2].position: placed for placed in self._pop().payloads}
        return known

    def _pop(self) -> DecodedBatch:
        batch = self._batches.popleft()
        self._size -= len(batch.payloads)
        return batch
