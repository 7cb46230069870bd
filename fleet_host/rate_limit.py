"""Limits of how often something may happen. Pure: the time comes in as an argument, seconds on any one clock."""

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """`burst` events at once, and then one every `interval_seconds`.

    A bucket is one number, when it will be full again (the generic cell rate algorithm, ITU-T I.371): buckets of a
    million devices are at most a million floats, as full ones need none.
    """

    interval_seconds: float
    burst: int

    def after_one(self, full_at: float, now: float) -> float | None:
        """When the bucket will be full again if one event happens at `now`; None where it may not."""
        begins = max(full_at, now)
        if begins - now > (self.burst - 1) * self.interval_seconds:
            return None
        return begins + self.interval_seconds


UNLIMITED = TokenBucket(0.0, 1)
"""Never empty."""


class RateLimit:
    """Allows one event per key in `interval_seconds`, and remembers at most `maximum_keys` of them at a time."""

    def __init__(self, interval_seconds: float, maximum_keys: int) -> None:
        self._interval_seconds = interval_seconds
        self._maximum_keys = maximum_keys
        self._free_at: dict[Hashable, float] = {}

    def allows(self, key: Hashable, now: float) -> bool:
        """Whether `key` may go ahead at `now`; where too many keys are new at once, the rest must wait too."""
        if self._free_at.get(key, now) > now:
            return False
        self._free_at.pop(key, None)
        self._forget_expired(now)
        if len(self._free_at) >= self._maximum_keys:
            return False
        self._free_at[key] = now + self._interval_seconds
        return True

    def _forget_expired(self, now: float) -> None:
        # Insertion order is expiry order, so the loop ends at the first key that has not expired.
        while self._free_at:
            key, free_at = next(iter(self._free_at.items()))
            if free_at > now:
                return
            del self._free_at[key]
