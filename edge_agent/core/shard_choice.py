"""Shard choice: where a device is, where it goes once a manifest names the fleet's shards, and how often. Pure.

Two manifests may contradict each other, as while the coordinators of a fleet are restarted one after the other, or
where a broker repeats an old one. A device that followed each at once would connect anew without end: after each move
it stays, longer each time.

Times are seconds on any clock that only grows.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

from fleet_protocol.shards import shard_of

FIRST_STAY_SECONDS = 60.0
LAST_STAY_SECONDS = 3600.0
"""How long a device stays after a move; doubles from first to last while moves follow each other."""
SETTLED_SECONDS = 2 * LAST_STAY_SECONDS
"""Who has stayed so long moves as the first time."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a device is: it speaks and hears under `shard`, and signs what waits in its outbox for `signs_for`, which
    is another one as long as something waits that was signed before it moved.
    """

    shard: str
    signs_for: str


class ShardChoice:
    """Of the device of this name, which is in `shard`."""

    __slots__ = ("_device", "_moved_at", "_shard", "_stay_seconds", "wanted")

    def __init__(self, device: str, shard: str) -> None:
        self._device = device
        self._shard = self.wanted = shard
        self._moved_at = -math.inf
        self._stay_seconds = 0.0

    def hear(self, shards: Collection[str]) -> bool:
        """A verified manifest names the fleet's shards, or none; whether this device is to move."""
        if shards:
            self.wanted = shard_of(self._device, shards)
        return self.wanted != self._shard

    @property
    def due_at(self) -> float | None:
        """When the device is to move; None where it stays."""
        return None if self.wanted == self._shard else self._moved_at + self._stay_seconds

    def moved(self, now: float) -> None:
        """The device has moved to the shard that was `wanted`."""
        is_settled = now - self._moved_at >= SETTLED_SECONDS
        longer = min(2 * self._stay_seconds, LAST_STAY_SECONDS)
        self._stay_seconds = FIRST_STAY_SECONDS if is_settled else longer
        self._moved_at = now
        self._shard = self.wanted
