"""How much of a task's updates one device may send: a share of the last ones, and beyond it a trickle. Pure.

    share = 1                                              while no other device takes part
            min(MOST, FAIR_FACTOR / devices in the window) otherwise

The window is the last accepted updates of the task. What is beyond the share is refused for now, and the device keeps
it; but a device alone among others that only listen goes on, with a version every `ALONE_SECONDS`: nothing ever waits
for another device. docs/decisions/share-of-one-device.md
"""

import math
from collections.abc import Sequence

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


def window(buffer_size: int, max_staleness: int) -> int:
    """How many updates are looked at: at most those of half as many versions as a device may be behind."""
    return min(LARGEST_WINDOW, max(SMALLEST_WINDOW, buffer_size * max_staleness // 2))


def is_beyond_share(recent: Sequence[str], device: str, size: int, *, others_listen: bool) -> bool:
    """Whether one more update would be too many, after those of the devices `recent`, of at most `size` updates."""
    devices = len({*recent, device})
    if devices == 1 and not others_listen:
        return False
    return recent.count(device) >= math.ceil(min(MOST, FAIR_FACTOR / devices) * size)


def trickle(buffer_size: int) -> TokenBucket:
    """What a device may send beyond its share."""
    return TokenBucket(ALONE_SECONDS / buffer_size, min(MOST_AT_ONCE, 2 * buffer_size))
