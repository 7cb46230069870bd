"""How much of a task's updates one device may send: a share of the last ones, and beyond it a trickle. Pure.

    share = 1                                              while no other device takes part
            min(MOST, FAIR_FACTOR / devices in the window) otherwise

The window is the last accepted updates of the task. What is beyond the share is refused for now, and the device keeps
it; but a device alone among others that only listen goes on, with a version every `ALONE_SECONDS`: nothing ever waits
for another device. docs/decisions/share-of-one-device.md
"""

import math
from collections import Counter, deque
from collections.abc import Iterable
from functools import cache

from fleet_host.rate_limit import TokenBucket

MOST = 0.75
"""Of the window: so others' updates are at least every fourth one."""

FAIR_FACTOR = 2
"""Devices differ in speed: this many times an equal share is nobody's flood."""

SMALLEST_WINDOW = 8
LARGEST_WINDOW = 64
"""Updates: enough to tell a flood from chance, few enough to count at each update."""

ALONE_SECONDS = 240.0
"""Time per version that a device makes beyond its share."""

MOST_AT_ONCE = 8
"""Updates beyond its share that a device may send at once: by chance it comes several times in a row."""


@cache
def window(buffer_size: int, max_staleness: int) -> int:
    """How many updates are looked at: at most those of half as many versions as a device may be behind."""
    return min(LARGEST_WINDOW, max(SMALLEST_WINDOW, buffer_size * max_staleness // 2))


class RecentDevices:
    """The devices that the last accepted updates of a task are of: at most `size` updates, the window."""

    __slots__ = ("_order", "_updates_of", "size")

    def __init__(self, size: int, devices: Iterable[str] = ()) -> None:
        """`devices` come oldest first, one for each update."""
        self.size = size
        self._order: deque[str] = deque(devices, maxlen=size)
        self._updates_of = dict(Counter(self._order))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecentDevices) and (self.size, self._order) == (other.size, other._order)

    __hash__ = None  # type: ignore[assignment]  # it changes

    def copy(self) -> "RecentDevices":
        """One that may be changed by itself."""
        return RecentDevices(self.size, self._order)

    def add(self, device: str) -> None:
        """Note one more accepted update; the oldest leaves a full window."""
        if len(self._order) == self.size:
            oldest = self._order[0]
            if left := self._updates_of.pop(oldest) - 1:
                self._updates_of[oldest] = left
        self._order.append(device)
        self._updates_of[device] = self._updates_of.get(device, 0) + 1

    def is_beyond_share(self, device: str, *, others_listen: bool) -> bool:
        """Whether one more update of this device would be too many."""
        updates = self._updates_of.get(device, 0)
        devices = len(self._updates_of) + (not updates)
        if devices == 1 and not others_listen:
            return False
        return updates >= math.ceil(min(MOST, FAIR_FACTOR / devices) * self.size)


@cache
def trickle(buffer_size: int) -> TokenBucket:
    """What a device may send beyond its share."""
    return TokenBucket(ALONE_SECONDS / buffer_size, min(MOST_AT_ONCE, 2 * buffer_size))
