"""Journalled payloads on their way into an aggregate, and a cache of decoded ones that spares reading them twice."""

from typing import Any

import msgspec

MAX_CACHED = 2_000
"""Two batches: what is committed is aggregated, or waits decoded, before the next batch but one."""


class WaitingPayload(msgspec.Struct, frozen=True, gc=False):
    """`facts` and `item` are as the kind's consumer has made them."""

    position: int
    staleness: int
    facts: Any
    item: Any


class DecodedPayloads:
    """By position, what was decoded to be admitted, so as not to decode it again. It may forget any of it."""

    def __init__(self, maximum: int = MAX_CACHED) -> None:
        self._maximum = maximum
        self._found: dict[int, WaitingPayload] = {}

    def keep(self, waiting: WaitingPayload) -> None:
        """Keep one, in place of the one that was kept longest where there are too many."""
        self._found[waiting.position] = waiting
        if len(self._found) > self._maximum:
            del self._found[next(iter(self._found))]

    def take(self, position: int) -> WaitingPayload | None:
        """Hand one over, and keep it no longer."""
        return self._found.pop(position, None)
