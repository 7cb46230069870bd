"""Limits of how often something may happen, or of how much. Pure: the time comes in, seconds on any one clock."""

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """`burst` units at once, then one every `interval_seconds`. A unit is what is counted: an event, a byte, a chunk.

    A bucket is one number, when it will be full again (the generic cell rate algorithm, ITU-T I.371): buckets of a
    million devices are at most a million floats, as full ones need none.
    """

    interval_seconds: float
    burst: float

    def after(self, full_at: float, now: float, cost: float = 1.0) -> float | None:
        """When the bucket will be full again if something of `cost` units happens at `now`; None where it may not.

        It may while at least one unit is left, or all that the bucket holds; what it costs beyond that, later ones wait
        for. So nothing is too dear for ever, and whatever is asked for is paid for.
        """
        begins = full_at if full_at > now else now
        if begins - now > (self.burst - 1) * self.interval_seconds:
            return None
        return begins + cost * self.interval_seconds


UNLIMITED = TokenBucket(0.0, 1)
"""Never empty."""


class RateLimit:
    """A token bucket for each key, of at most `maximum_keys` at a time: a full one needs no memory."""

    def __init__(self, interval_seconds: float, maximum_keys: int, *, burst: float = 1) -> None:
        self._bucket = TokenBucket(interval_seconds, burst)
        self._maximum_keys = maximum_keys
        self._full_at: dict[Hashable, float] = {}

    def has_room(self, key: Hashable, now: float) -> bool:
        """Whether the bucket of `key` is not empty; nothing is taken from it."""
        return self._bucket.after(self._full_at.get(key, now), now) is not None

    def allows(self, key: Hashable, now: float, cost: float = 1.0) -> bool:
        """Whether `key` may go ahead at `now`; where too many keys are new at once, the rest must wait too."""
        full_at = self._bucket.after(self._full_at.get(key, now), now, cost)
        if full_at is None:
            return False
        self._full_at.pop(key, None)
        self._forget_full(now)
        if len(self._full_at) >= self._maximum_keys:
            return False
        self._full_at[key] = full_at
        return True

    def _forget_full(self, now: float) -> None:
        # The first was used longest ago. One that is full behind it stays until then: the number of all is bounded.
        while self._full_at:
            key, full_at = next(iter(self._full_at.items()))
            if full_at > now:
                return
            del self._full_at[key]
